//! Signals as an async stream, by signal-hook's pipe.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::io;
use tokio::{io::AsyncReadExt, net::UnixStream};

/// What was asked by a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// End in order; asked again: at once.
    Stop,
    /// Read the configuration again.
    Reload,
    /// Open the logs again.
    Reopen,
}

/// The signals of this process.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Asked, UnixStream)>);

impl Signals {
    /// From now on signals come here. Call it inside a runtime.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub(super) fn new() -> io::Result<Self> {
        let mut streams = Vec::new();
        let wanted = [(SIGTERM, Asked::Stop), (SIGINT, Asked::Stop), (SIGHUP, Asked::Reload), (SIGUSR1, Asked::Reopen)];
        for (signal, asked) in wanted {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, theirs)?;
            streams.push((asked, UnixStream::from_std(ours)?));
        }
        Ok(Self(streams))
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        let reads = self.0.iter_mut().map(|(asked, stream)| {
            Box::pin(async move {
                let mut byte = [0; 1];
                match stream.read(&mut byte).await {
                    Ok(1..) => *asked,
                    Ok(0) | Err(_) => std::future::pending().await,
                }
            })
        });
        futures_util::future::select_all(reads).await.0
    }
}
