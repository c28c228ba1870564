//! An S3 server on loopback, over a directory, that can be told to misbehave.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use s3s::Body;
use s3s::service::S3Service;

pub(crate) const KEYS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "effai-test"), ("AWS_SECRET_ACCESS_KEY", "not-a-secret")];

/// What it does to requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// After so many requests with lines that hold this, every connection is closed without an answer.
    DiesAfter(usize, &'static str),
    /// Requests with lines that hold this get no answer.
    Stalls(&'static str),
    /// Answers to lines that hold this break off in the middle.
    GivesHalf(&'static str),
}

pub(crate) struct Server {
    dir: tempfile::TempDir,
    address: SocketAddr,
    state: Arc<State>,
    runtime: Option<tokio::runtime::Runtime>,
}

struct State {
    /// `PUT /effai/p/v1/blobs/...` with what it asks of a range.
    requests: Mutex<Vec<String>>,
    fault: Mutex<Fault>,
    s3: S3Service,
}

impl Server {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("effai")).expect("a bucket");
        let files = s3s_fs::FileSystem::new(dir.path()).expect("a server");
        let mut builder = s3s::service::S3ServiceBuilder::new(files);
        builder.set_auth(s3s::auth::SimpleAuth::from_single(KEYS[0].1, KEYS[1].1));
        let state = State { requests: Mutex::default(), fault: Mutex::new(Fault::None), s3: builder.build() };
        let state = Arc::new(state);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("bound");
        let address = listener.local_addr().expect("bound");
        runtime.spawn(listen(listener, state.clone()));
        Self { dir, address, state, runtime: Some(runtime) }
    }

    /// A `remote` of this name that is this server.
    pub(crate) fn remote(&self, timeout: &str) -> String {
        format!(
            "remote \"s3\" {{ url \"s3://effai/p\"; endpoint \"http://{}\"; region \"us-east-1\"; access \"read-write\"; \
             timeout \"{timeout}\"; }}\n",
            self.address
        )
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.state.fault.lock().expect("no panic") = fault;
        self.state.requests.lock().expect("no panic").clear();
    }

    /// What was asked since the fault was set.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().expect("no panic").clone()
    }

    /// As if a rule of the bucket's had ended every upload that was not completed.
    pub(crate) fn end_uploads(&self) {
        for entry in std::fs::read_dir(self.dir.path()).expect("listed").map(|entry| entry.expect("an entry")) {
            if entry.file_name().to_string_lossy().starts_with(".upload") {
                std::fs::remove_file(entry.path()).expect("removed");
            }
        }
    }

    /// Where the objects of a sort lie.
    pub(crate) fn objects(&self, sort: &str) -> PathBuf {
        self.dir.path().join("effai/p/v1").join(sort)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}

async fn listen(listener: tokio::net::TcpListener, state: Arc<State>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let state = state.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let state = state.clone();
                async move { state.answer(request).await }
            });
            let io = hyper_util::rt::TokioIo::new(socket);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await;
        });
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
        let range = request.headers().get("range").and_then(|range| range.to_str().ok()).unwrap_or_default();
        let query = request.uri().query().unwrap_or_default();
        let line = format!("{} {}?{query} {range}", request.method(), request.uri().path());
        let fault = *self.fault.lock().expect("no panic");
        let before = {
            let mut requests = self.requests.lock().expect("no panic");
            requests.push(line.clone());
            requests.clone()
        };
        let count = |part: &str| before.iter().filter(|line| line.contains(part)).count();
        match fault {
            Fault::DiesAfter(n, part) if count(part) > n => return Err(std::io::ErrorKind::ConnectionAborted.into()),
            Fault::Stalls(part) if line.contains(part) => std::future::pending::<()>().await,
            _ => {}
        }
        let request = request.map(Body::from);
        let answer = self.s3.call(request).await.map_err(|e| std::io::Error::other(format!("{e:?}")))?;
        match fault {
            Fault::GivesHalf(part) if line.contains(part) => Ok(half(answer).await),
            _ => Ok(answer),
        }
    }
}

/// An answer that ends amid its body.
async fn half(answer: Response<Body>) -> Response<Body> {
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let first = bytes.slice(..bytes.len() / 2);
    let frames: [Result<Frame<Bytes>, std::io::Error>; 2] =
        [Ok(Frame::data(first)), Err(std::io::ErrorKind::ConnectionAborted.into())];
    Response::from_parts(head, Body::http_body_unsync(StreamBody::new(futures_util::stream::iter(frames))))
}
