//! The plumbing that web and admin share: binding, serving a connection, bodies, short pages.
//!
//! A connection is served in three layers: [`Stream`] counts bytes and ends what stalls, hyper speaks HTTP/1.1 or
//! HTTP/2, and a [`Handler`] answers. A [`Scope`] counts the connections that one thread has in one group, and tells
//! them to drain.
//!
//! Rule: a response that could not be sent whole never looks whole. An HTTP/1.1 connection is reset, an HTTP/2 stream
//! too.
//!
//! Not here: what is answered (`web`, `admin`).

mod body;
mod counters;
pub(crate) mod flood;
mod listen;
mod parcel;
pub(crate) mod proxy_header;
mod respond;
mod scope;
mod serve;
mod stream;

pub use body::{Body, BoxStream};
pub use counters::{Counters, Totals};
pub use listen::{BindError, bind, check_free, raise_open_files};
pub use respond::{closing, page, redirect};
pub use scope::{Connection, Drain, Patience, Scope, Secure};
pub use serve::{Handler, LocalExecutor, serve};
pub use stream::{Agreed, Stream, Transport};
pub(crate) use {counters::count, listen::keep_alive, parcel::Parcel};
