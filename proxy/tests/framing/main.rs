//! The attacker: raw sockets against the whole binary, with an origin behind it that writes down every byte it gets.
//!
//! - [`refused`], [`served`]: what clients may send; the origin must only ever see requests that have one meaning.
//! - [`origin_side`]: what origins may answer; no client must ever get another's answer, or a cut one for whole.
//! - [`fuzz`]: mutations of valid requests under the same promises, from a seed that is printed.
//! - [`poison`]: ways to put into the cache what others would get.
//! - [`http2`]: streams and frames that hold on to us.
//! - [`http2_heads`]: heads that HTTP/1 would misread.
//! - [`injection`]: bytes of a request in templates of the configuration.
//! - [`early`]: origins that answer before they were asked to the end.
//! - [`crowd`]: many connections that want nothing.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod crowd;
mod early;
mod fuzz;
mod harness;
mod http2;
mod http2_heads;
mod injection;
mod origin;
mod origin_side;
mod poison;
mod refused;
mod served;
