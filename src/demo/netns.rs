//! Network namespaces, held by file descriptors alone: no holder processes, no mounts, no `ip` program.
//!
//! A namespace lives as long as a descriptor, a socket or a process in it. All descriptors here close on exec and with
//! the process, so whatever happens to the demo, the kernel takes its networks away.
//!
//! Not here: what is in them (`lab`), and how an ordinary user comes to be allowed to make them (`stage`).

use super::error::{Attempt, Error, Result};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// One network namespace. A copy is the same namespace.
#[derive(Debug, Clone)]
pub struct Netns {
    descriptor: Arc<OwnedFd>,
}

impl Netns {
    /// A new, empty network: a loopback interface that is down.
    ///
    /// # Errors
    /// If the kernel refuses, as it does without `CAP_SYS_ADMIN` (see `stage`), or without `/proc`.
    pub fn new() -> io::Result<Self> {
        let made = thread::spawn(|| -> io::Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let descriptor = made.join().map_err(|_| io::Error::other("the thread that makes a namespace panicked"))??;
        Ok(Self { descriptor: Arc::new(descriptor) })
    }

    /// Moves the calling thread, and nothing else of this process, into the namespace, for good.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn enter(&self) -> io::Result<()> {
        setns(&*self.descriptor, CloneFlags::CLONE_NEWNET).map_err(Into::into)
    }

    /// Does `work` in the namespace, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or the work panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| self.enter().map(|()| work()));
            worker
                .join()
                .map_err(|_| Error::new("work in a network namespace panicked"))?
                .or_cannot("enter a namespace")
        })
    }

    /// A thread named `name` that lives in the namespace.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<io::Result<T>>> {
        let namespace = self.clone();
        let body = move || namespace.enter().map(|()| work());
        thread::Builder::new().name(name.into()).spawn(body).or_cannot("start a thread")
    }

    /// Makes `command` start in the namespace.
    #[expect(unsafe_code, reason = "a hook between fork and exec has no safe form")]
    pub fn host<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let namespace = self.clone();
        // SAFETY: the hook only makes one system call (setns), allocates nothing and takes no lock.
        unsafe { command.pre_exec(move || namespace.enter()) }
    }

    /// Talks to the namespace's kernel by netlink, and waits for the end of it.
    ///
    /// # Errors
    /// If there is no socket to be had, or `work` fails.
    pub fn netlink<T: Send>(
        &self,
        work: impl AsyncFnOnce(rtnetlink::Handle) -> std::result::Result<T, rtnetlink::Error> + Send,
    ) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.or_cannot("make a runtime")?.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().or_cannot("open a netlink socket")?;
                let connection = tokio::spawn(connection);
                let answer = work(handle).await;
                connection.abort();
                answer.or_cannot("set up a network")
            })
        })?
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}
