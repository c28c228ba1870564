//! One remote: how it is reached, how much is asked of it at once, and whether it is asked at all any more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
    RetryConfig,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::upload::{Object, Upload};
use super::{LeftOut, Trouble, Turns};
use crate::recipe::remote::{Access, Remote};
use crate::util::fs;
use crate::util::text::duration;

/// Requests for small things at once: what they wait for is the way there and back.
const REQUESTS_AT_ONCE: usize = 32;

/// Requests at once that carry many bytes: they wait for the line, and hold what they carry in memory.
const LOADS_AT_ONCE: usize = 6;

/// A server that does not take up a connection in this time is none.
const CONNECT_MAX: Duration = Duration::from_secs(4);

/// How often a question is asked again, and how often what is sent is sent again.
const RETRIES_OF_QUESTIONS: usize = 3;
const RETRIES_OF_SENDS: usize = 6;

/// What is sent may take longer than an answer: a part of it is on its way all that time.
const SENDS_TAKE: u32 = 6;

/// One remote.
pub(super) struct Place {
    pub(super) remote: Remote,
    /// The project's.
    root: PathBuf,
    /// For questions and what comes.
    asking: OnceLock<Result<Client, String>>,
    /// For what is sent.
    sending: OnceLock<Result<Client, String>>,
    /// Why it is left out.
    out: OnceLock<String>,
    requests: Arc<Semaphore>,
    loads: Arc<Semaphore>,
    /// Of blobs that are sent.
    pub(super) turns: Turns,
}

/// An object store, and where on it we are.
#[derive(Clone)]
struct Client {
    store: Arc<dyn ObjectStore>,
    /// The same, where uploads can be gone on with.
    parts: Option<Arc<dyn MultipartStore>>,
    prefix: ObjectPath,
}

/// An object, as its bytes come.
pub(super) type Coming = BoxStream<'static, object_store::Result<bytes::Bytes>>;

/// What comes of asking for a part of an object.
pub(super) enum Part {
    /// The bytes, and how many the object has as a whole.
    Bytes { bytes: bytes::Bytes, whole: u64 },
    /// The object is not there.
    Missing,
    /// The server gives objects as a whole or not at all.
    Refused,
}

impl Client {
    fn path(&self, object: &str) -> ObjectPath {
        self.prefix.parts().chain(ObjectPath::from(object).parts()).collect()
    }
}

impl Place {
    pub(super) fn new(remote: &Remote, root: &Path) -> Self {
        Self {
            remote: remote.clone(),
            root: root.to_owned(),
            asking: OnceLock::new(),
            sending: OnceLock::new(),
            out: OnceLock::new(),
            requests: Arc::new(Semaphore::new(REQUESTS_AT_ONCE)),
            loads: Arc::new(Semaphore::new(LOADS_AT_ONCE)),
            turns: Turns::default(),
        }
    }

    /// Whether it is still asked.
    pub(super) fn is_in(&self) -> bool {
        self.out.get().is_none()
    }

    /// Leaves it out from now on; to be told, unless it was before.
    pub(super) fn leave_out(&self, why: String) -> Option<LeftOut> {
        self.out.set(why.clone()).ok()?;
        Some(LeftOut { remote: self.remote.name.clone(), why })
    }

    /// A small object; none if it is not there.
    pub(super) async fn small(&self, object: &str) -> Result<Option<bytes::Bytes>, Trouble> {
        let client = self.asking()?;
        let _permit = permit(&self.requests).await;
        let got = async { client.store.get(&client.path(object)).await?.bytes().await };
        self.unless_missing(got.await)
    }

    /// The bytes of an object; none if it is not there.
    pub(super) async fn size(&self, object: &str) -> Result<Option<u64>, Trouble> {
        let client = self.asking()?;
        let _permit = permit(&self.requests).await;
        let looked = client.store.head(&client.path(object)).await;
        Ok(self.unless_missing(looked)?.map(|meta| meta.size))
    }

    /// Begins to read an object; none if it is not there.
    pub(super) async fn stream(&self, object: &str) -> Result<Option<Coming>, Trouble> {
        let client = self.asking()?;
        let _permit = permit(&self.requests).await;
        let got = client.store.get(&client.path(object)).await;
        Ok(self.unless_missing(got)?.map(|got| got.into_stream()))
    }

    /// What comes next of an object that is being read; none at its end.
    pub(super) async fn next(&self, coming: &mut Coming) -> Result<Option<bytes::Bytes>, Trouble> {
        coming.next().await.transpose().map_err(|error| self.trouble(&error))
    }

    /// A part of an object.
    pub(super) async fn part(&self, object: &str, range: std::ops::Range<u64>) -> Result<Part, Trouble> {
        let client = self.asking()?;
        let _permit = permit(&self.loads).await;
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        let got = async {
            let got = client.store.get_opts(&client.path(object), options).await?;
            let whole = got.meta.size;
            Ok(Part::Bytes { bytes: got.bytes().await?, whole })
        };
        match got.await {
            Err(error) if is_refused(&error) => Ok(Part::Refused),
            got => Ok(self.unless_missing(got)?.unwrap_or(Part::Missing)),
        }
    }

    /// Writes an object.
    pub(super) async fn put(&self, object: &str, bytes: bytes::Bytes) -> Result<(), Trouble> {
        let client = self.sending()?;
        let _permit = permit(&self.loads).await;
        let put = client.store.put(&client.path(object), PutPayload::from_bytes(bytes)).await;
        put.map(drop).map_err(|error| self.trouble_of_send(&error))
    }

    /// Goes on with writing an object in parts, or begins it; none where that cannot be gone on with. `dir` holds what is
    /// written down of it.
    pub(super) async fn upload(&self, dir: &Path, object: &str, sizes: (u64, u64)) -> Result<Option<Upload>, Trouble> {
        let client = self.sending()?;
        let Some(store) = client.parts.clone() else { return Ok(None) };
        let _permit = permit(&self.requests).await;
        let remote = format!("{} {}", self.remote.url, self.remote.endpoint.as_deref().unwrap_or_default());
        let (bytes, part_bytes) = sizes;
        let what = Object { remote, name: object, bytes, part_bytes };
        let opened = Upload::open(store, client.path(object), dir, what).await;
        opened.map(Some).map_err(|error| self.trouble_of_send(&error))
    }

    /// Begins to write an object in parts; none where the server takes none.
    pub(super) async fn put_in_parts(&self, object: &str) -> Result<Option<Box<dyn MultipartUpload>>, Trouble> {
        let client = self.sending()?;
        let _permit = permit(&self.requests).await;
        match client.store.put_multipart(&client.path(object)).await {
            Err(Error::NotImplemented { .. } | Error::NotSupported { .. }) => Ok(None),
            begun => begun.map(Some).map_err(|error| self.trouble_of_send(&error)),
        }
    }

    /// Waits for its turn to carry many bytes.
    pub(super) async fn load(&self) -> OwnedSemaphorePermit {
        permit(&self.loads).await
    }

    /// What an error means of what is sent.
    pub(super) fn trouble_of_send(&self, error: &Error) -> Trouble {
        Trouble::Remote(explain(error, self.patience() * SENDS_TAKE))
    }

    fn trouble(&self, error: &Error) -> Trouble {
        Trouble::Remote(explain(error, self.patience()))
    }

    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.remote.timeout)
    }

    fn unless_missing<T>(&self, result: object_store::Result<T>) -> Result<Option<T>, Trouble> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.trouble(&error)),
        }
    }

    fn asking(&self) -> Result<&Client, Trouble> {
        let client = self.asking.get_or_init(|| self.open(self.patience(), RETRIES_OF_QUESTIONS));
        client.as_ref().map_err(|why| Trouble::Remote(why.clone()))
    }

    fn sending(&self) -> Result<&Client, Trouble> {
        let client = self.sending.get_or_init(|| self.open(self.patience() * SENDS_TAKE, RETRIES_OF_SENDS));
        client.as_ref().map_err(|why| Trouble::Remote(why.clone()))
    }

    /// A client whose server may say nothing for so long.
    fn open(&self, timeout: Duration, retries: usize) -> Result<Client, String> {
        let Remote { url, endpoint, region, .. } = &self.remote;
        let scheme = self.remote.scheme();
        let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        if matches!(scheme, "" | "file") {
            return self.directory(rest);
        }
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = ObjectPath::parse(prefix.trim_end_matches('/')).map_err(|e| e.to_string())?;
        let at = format!("{scheme}://{host}");
        let is_open = |address: Option<&str>| address.is_some_and(|address| address.starts_with("http://"));
        let options = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(timeout.min(CONNECT_MAX))
            .with_read_timeout(timeout)
            .with_allow_http(is_open(endpoint.as_deref()) || scheme == "http");
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: timeout, ..BackoffConfig::default() },
            max_retries: retries,
            retry_timeout: timeout,
        };
        bring_tls();
        let store: object_store::Result<Stores> = match scheme {
            "s3" | "s3a" => {
                let variables = crate::env::of_cloud("AWS_");
                let mut builder = AmazonS3Builder::new().with_url(at).with_retry(retry).with_client_options(options);
                for (name, value) in variables {
                    if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
                if let Some(endpoint) = endpoint {
                    builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
                }
                if let Some(region) = region {
                    builder = builder.with_region(region);
                }
                let addresses = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
                if addresses.iter().any(|key| is_open(builder.get_config_value(key).as_deref())) {
                    builder = builder.with_allow_http(true);
                }
                builder.build().map(both)
            }
            "gs" => {
                let mut builder =
                    GoogleCloudStorageBuilder::new().with_url(at).with_retry(retry).with_client_options(options);
                for (name, value) in crate::env::of_cloud("GOOGLE_") {
                    if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
                if let Some(endpoint) = endpoint {
                    builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
                }
                builder.build().map(both)
            }
            "http" | "https" => {
                let builder = HttpBuilder::new().with_url(at).with_retry(retry).with_client_options(options);
                builder.build().map(|store| (Arc::new(store) as _, None))
            }
            _ => {
                let mut builder =
                    MicrosoftAzureBuilder::new().with_url(at).with_retry(retry).with_client_options(options);
                for (name, value) in crate::env::of_cloud("AZURE_") {
                    if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
                        builder = builder.with_config(key, value);
                    }
                }
                if let Some(endpoint) = endpoint {
                    builder = builder.with_config(AzureConfigKey::Endpoint, endpoint);
                }
                builder.build().map(both)
            }
        };
        let (store, parts) = store.map_err(|error| deepest(&error))?;
        Ok(Client { store, parts, prefix })
    }

    /// A directory. One that is to be written to is made where what it lies in is there: a disk that is not mounted is not
    /// written over.
    fn directory(&self, path: &str) -> Result<Client, String> {
        let dir = self.root.join(crate::env::expand_home(path));
        let is_ours = self.remote.access == Access::ReadWrite && dir.parent().is_some_and(Path::is_dir);
        if !dir.is_dir() && is_ours {
            fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
        }
        if !dir.is_dir() {
            return Err(format!("{} is not there", dir.display()));
        }
        // What has its name is whole, also after a power cut.
        let store = LocalFileSystem::new_with_prefix(&dir).map_err(|e| deepest(&e))?.with_fsync(true);
        Ok(Client { store: Arc::new(store), parts: None, prefix: ObjectPath::default() })
    }
}

/// An object store, and the same by its uploads where it has any that can be gone on with.
type Stores = (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>);

fn both<S: ObjectStore + MultipartStore>(store: S) -> Stores {
    let store = Arc::new(store);
    (store.clone(), Some(store))
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.clone().acquire_owned().await.expect("it is never closed")
}

/// Has TLS done by ring, for all of this process.
fn bring_tls() {
    static BROUGHT: Once = Once::new();
    BROUGHT.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// An error of object_store's as a user can use it: whose move it is, without urls and counts of retries.
fn explain(error: &Error, waited: Duration) -> String {
    match error {
        Error::PermissionDenied { .. } => return "it refuses access (403)".into(),
        Error::Unauthenticated { .. } => return "it does not know these credentials (401)".into(),
        _ => {}
    }
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Timeout => format!("no answer within {}", duration(waited.as_millis() as u64)),
                HttpErrorKind::Connect => format!("it cannot be reached: {}", deepest(http)),
                HttpErrorKind::Request | HttpErrorKind::Interrupted => "the connection broke".into(),
                _ => deepest(http),
            };
        }
        if let Some(status) = status(&error.to_string()) {
            return status;
        }
        next = error.source();
    }
    deepest(error)
}

/// Whether a server gave the whole where a part was asked for. The type that says so is object_store's own.
fn is_refused(error: &Error) -> bool {
    deepest(error).contains("non-partial response")
}

/// `it answers 503 Service Unavailable`, with what an S3 server says besides.
fn status(text: &str) -> Option<String> {
    let said = text.strip_prefix("Server returned non-2xx status code: ")?;
    let (status, body) = said.split_once(": ").unwrap_or((said, ""));
    let message = body.split_once("<Message>").and_then(|(_, rest)| rest.split_once("</Message>"));
    let message = message.map(|(message, _)| format!(": {message}")).unwrap_or_default();
    Some(format!("it answers {status}{message}"))
}

/// What is at the bottom of an error, on one line.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string().lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}
