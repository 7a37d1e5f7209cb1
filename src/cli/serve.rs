//! `hawser serve DIR`: a web server in one command.

use super::{args::ServeArgs, out};
use crate::{telemetry, web};
use signal_hook::{consts::TERM_SIGNALS, iterator::Signals};
use std::{process::ExitCode, time::Duration};

/// Requests in progress get this long after Ctrl-C.
const LAST_REQUESTS: Duration = Duration::from_secs(2);

/// `hawser serve`.
pub(crate) fn serve(args: &ServeArgs) -> ExitCode {
    telemetry::start();
    let started =
        Signals::new(TERM_SIGNALS).map_err(|e| format!("cannot listen for signals: {e}")).and_then(|signals| {
            let handle = web::serve_dir(args.dir.clone(), args.listen).map_err(|e| e.to_string())?;
            Ok((signals, handle))
        });
    let (mut signals, handle) = match started {
        Ok(started) => started,
        Err(why) => {
            out::error(why);
            return ExitCode::FAILURE;
        }
    };
    for address in handle.local_addrs() {
        out::line(format_args!("serving {} at http://{address}/  (Ctrl-C ends it)", args.dir.display()));
    }
    signals.forever().next();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Ok(runtime) = runtime {
        runtime.block_on(handle.shutdown(LAST_REQUESTS));
    }
    ExitCode::SUCCESS
}
