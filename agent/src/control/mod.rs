//! The control socket: what a client may ask, the server in the loop, the client that the tools use.

pub mod client;
pub mod proto;
pub mod server;
