//! The child's side: read the job, run the kind, say what happens.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use super::Job;
use crate::event::ActionEvent;
use crate::failure::Failure;
use crate::kind::{self, ActionCx, How};

/// Progress is told at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

/// Runs the job on standard input; returns the exit code.
pub(super) fn run() -> u8 {
    let mut events = Events::open();
    let mut text = Vec::new();
    let job: Job = match std::io::stdin()
        .read_to_end(&mut text)
        .map_err(|e| e.to_string())
        .and_then(|_| serde_json::from_slice(&text).map_err(|e| e.to_string()))
    {
        Ok(job) => job,
        Err(error) => {
            events.send(ActionEvent::Failed(Failure::user(format!("this verb is effai's own: {error}"))));
            return 2;
        }
    };
    if let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(job.threads).build_global() {
        let failure = Failure::environment(format!("cannot start threads ({}): {error}", job.threads));
        events.send(ActionEvent::Failed(failure.help("fewer jobs with -j start fewer threads")));
        return 3;
    }
    let kind = match kind::find(&job.decl.kind).expect("the engine knows the same kinds").how() {
        How::Inside(kind) => kind,
        How::Program(_) => unreachable!("the engine starts the program of such a kind itself"),
    };
    let mut say = |event| events.send(event);
    let mut cx = ActionCx {
        decl: &job.decl,
        threads: job.threads,
        project: job.project.clone(),
        inputs: job.inputs.clone(),
        out: job.out.clone(),
        scratch: job.scratch.clone(),
        // For what it runs and holds to that itself: `timed`.
        is_held: cfg!(target_os = "linux") && super::is_held() && job.is_sandboxed,
        backend: job.backend,
        events: &mut say,
    };
    let result = std::panic::catch_unwind(AssertUnwindSafe(|| kind.run(&mut cx)));
    match result {
        Ok(Ok(())) => 0,
        Ok(Err(failure)) => {
            let code = failure.class.exit_code();
            events.send(ActionEvent::Failed(failure));
            code
        }
        // The message and place are in the log already: the panic hook wrote them to stderr.
        Err(_) => {
            let failure = Failure::target("a bug in effai: an invariant broke, the log says which")
                .help("please report it with the log");
            events.send(ActionEvent::Failed(failure));
            101
        }
    }
}

struct Events {
    to: Option<BufWriter<File>>,
    last_progress: Option<Instant>,
}

impl Events {
    #[expect(unsafe_code, reason = "a descriptor by number, handed over by the engine, becomes a file once")]
    fn open() -> Self {
        // SAFETY: the engine opened this descriptor for this process, and nothing else here uses it.
        let to =
            crate::env::events_descriptor().map(|fd| BufWriter::new(File::from(unsafe { OwnedFd::from_raw_fd(fd) })));
        Self { to, last_progress: None }
    }

    fn send(&mut self, event: ActionEvent) {
        // Standard output is the action's log, which outlives the build.
        if let ActionEvent::Log { text } = &event {
            let _ = writeln!(std::io::stdout(), "{text}");
        }
        let Some(to) = &mut self.to else { return };
        if let ActionEvent::Progress { done, total, .. } = &event {
            let now = Instant::now();
            let soon = self.last_progress.is_some_and(|last| now - last < PROGRESS_EVERY);
            if soon && Some(*done) != *total {
                return;
            }
            self.last_progress = Some(now);
        }
        // If the engine is gone, so is the reason to speak; the death signal follows.
        let _ = serde_json::to_writer(&mut *to, &event);
        let _ = to.write_all(b"\n");
        let _ = to.flush();
    }
}
