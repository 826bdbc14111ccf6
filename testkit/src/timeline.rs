//! Events and their moments: one clock for everything that is watched, and lines that are printed
//! as they come.
//!
//! Sources push events from threads of their own: `ip monitor` of a namespace, a growing log file,
//! the story itself. This side stamps all of them with one monotonic clock, as soon as it has read
//! the line.

#![expect(clippy::disallowed_methods, reason = "it is the clock; the log follower pauses between two looks")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::Net;
use crate::wait::poll_for;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its moment.
    pub at: Instant,
    /// Its source: a namespace, a service, the story.
    pub source: String,
    /// Its text.
    pub text: String,
}

/// Turns a line into the text to show; `None` hides it. It may remember what it has shown.
pub type Filter = Box<dyn FnMut(&str) -> Option<String> + Send>;

type Printer = Box<dyn Fn(Duration, &Event) + Send>;

struct Inner {
    start: Instant,
    events: Mutex<Vec<Event>>,
    printer: Mutex<Option<Printer>>,
    stop: AtomicBool,
}

/// The timeline. Watchers end when it is dropped.
pub struct Timeline {
    inner: Arc<Inner>,
    children: Mutex<Vec<Child>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Timeline {
    /// Starts the clock.
    pub fn start() -> Timeline {
        let inner = Inner {
            start: Instant::now(),
            events: Mutex::default(),
            printer: Mutex::default(),
            stop: AtomicBool::new(false),
        };
        Timeline { inner: Arc::new(inner), children: Mutex::default(), threads: Mutex::default() }
    }

    /// Calls `print` for each event from now on, in the order of the stamps.
    pub fn print_with(&self, print: impl Fn(Duration, &Event) + Send + 'static) {
        *self.inner.printer.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(print));
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.inner.start.elapsed()
    }

    /// Records an event of the story itself and returns its moment.
    pub fn note(&self, source: &str, text: &str) -> Instant {
        self.inner.push(Instant::now(), source, text.to_owned())
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        self.inner.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for an event at or after `from` that satisfies `wanted`.
    pub fn wait(&self, from: Instant, timeout: Duration, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        poll_for(timeout, || self.events().into_iter().find(|event| event.at >= from && wanted(event)))
    }

    /// Follows `ip monitor link address route` in a namespace.
    pub fn watch_kernel(&self, net: &Net, mut filter: Filter) {
        let mut command = net.command(&["ip", "-o", "monitor", "link", "address", "route"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start ip monitor");
        let stdout = child.stdout.take().expect("its output");
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        let (inner, source) = (Arc::clone(&self.inner), net.name().to_owned());
        self.keep(std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let at = Instant::now();
                if let Some(text) = filter(&line) {
                    inner.push(at, &source, text);
                }
            }
        }));
    }

    /// Follows a log file that need not exist yet. After a rotation it reads the new file from its
    /// beginning.
    pub fn watch_log(&self, source: &str, path: PathBuf, mut filter: Filter) {
        let (inner, source) = (Arc::clone(&self.inner), source.to_owned());
        self.keep(std::thread::spawn(move || {
            let (mut seen, mut partial) = (0_u64, String::new());
            while !inner.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2));
                // Most looks find nothing new, and cost only a stat.
                if path.metadata().map_or(0, |meta| meta.len()) == seen {
                    continue;
                }
                let Ok(mut file) = File::open(&path) else { continue };
                let len = file.metadata().map_or(0, |meta| meta.len());
                if len < seen {
                    seen = 0;
                }
                if len == seen || std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(seen)).is_err() {
                    continue;
                }
                let at = Instant::now();
                let mut bytes = Vec::new();
                seen += file.read_to_end(&mut bytes).unwrap_or(0) as u64;
                partial.push_str(&String::from_utf8_lossy(&bytes));
                while let Some((line, rest)) = partial.split_once('\n').map(|(l, r)| (l.to_owned(), r.to_owned())) {
                    partial = rest;
                    if let Some(text) = filter(&line) {
                        inner.push(at, &source, text);
                    }
                }
            }
        }));
    }

    fn keep(&self, thread: JoinHandle<()>) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }
}

impl Inner {
    fn push(&self, at: Instant, source: &str, text: String) -> Instant {
        let event = Event { at, source: source.to_owned(), text };
        // One lock covers both, so that events are printed in the order in which they are kept.
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(print) = self.printer.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            print(at.saturating_duration_since(self.start), &event);
        }
        events.push(event);
        at
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        for child in self.children.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}
