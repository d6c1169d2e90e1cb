//! The one table of what the front refuses: status, log word and public sentence.
//!
//! Every row is about bytes that the client sent (or did not send in time), so every status is a 4xx or one of the two
//! 5xx that blame the request itself (501, 505).

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident $status:literal $word:literal $sentence:literal;)*) => {
        /// Why a request was refused before, or while, it was read.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum BadRequest { $($(#[$doc])* $name,)* }

        impl BadRequest {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The status of the answer.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The log word, which is the metric label.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What the client is told.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

table! {
    /// The head was not complete in time.
    HeadTimeout 408 "head_timeout" "The request head took too long.";
    /// The head is larger than the listener allows.
    HeadTooLarge 431 "head_too_large" "The request head is too large.";
    /// The target is longer than the listener allows.
    UriTooLong 414 "uri_too_long" "The request target is too long.";
    /// More fields than the listener allows.
    TooManyFields 431 "too_many_fields" "The request has too many header fields.";
    /// Not `method SP target SP version`; HTTP/0.9 is one of these.
    BadLine 400 "bad_line" "The request line is malformed.";
    /// The method is not a token.
    BadMethod 400 "bad_method" "The request method is malformed.";
    /// A target that is no URI, has a fragment, or a form its method does not allow.
    BadTarget 400 "bad_target" "The request target is malformed.";
    /// Neither HTTP/1.0 nor HTTP/1.1.
    BadVersion 505 "bad_version" "This version of HTTP is not supported.";
    /// A CR that no LF follows.
    BareCr 400 "bare_cr" "The request head has a bare CR.";
    /// An LF without CR, where the listener refuses it.
    BareLf 400 "bare_lf" "The request head has a bare LF.";
    /// A NUL in the head.
    Nul 400 "nul" "The request head has a NUL.";
    /// A field continued on the next line.
    ObsFold 400 "obs_fold" "A header field is folded.";
    /// White space between a field's name and its colon.
    SpaceBeforeColon 400 "space_before_colon" "A header field has white space before its colon.";
    /// A field name that is no token, or that another parser may read as a framing field.
    BadFieldName 400 "bad_field_name" "A header field has a malformed name.";
    /// A control character in a field value.
    BadFieldValue 400 "bad_field_value" "A header field has a malformed value.";
    /// A field that HTTP/2 forbids.
    ForbiddenField 400 "forbidden_field" "A header field is not allowed in HTTP/2.";
    /// HTTP/1.1 without `Host`.
    MissingHost 400 "missing_host" "The Host field is missing.";
    /// More than one `Host`.
    SeveralHosts 400 "several_hosts" "The Host field is given more than once.";
    /// A `Host` or authority that is no host with an optional port.
    BadHost 400 "bad_host" "The Host field is malformed.";
    /// `Host` and the target's authority differ.
    HostMismatch 400 "host_mismatch" "The Host field contradicts the request target.";
    /// A `Content-Length` that is no number up to 2^63-1.
    BadLength 400 "bad_length" "The Content-Length field is malformed.";
    /// More than one `Content-Length`, equal or not.
    SeveralLengths 400 "several_lengths" "The Content-Length field is given more than once.";
    /// `Content-Length` together with `Transfer-Encoding`.
    LengthAndCoding 400 "length_and_coding" "Content-Length and Transfer-Encoding exclude each other.";
    /// A `Transfer-Encoding` that is not exactly one `chunked`.
    BadCoding 400 "bad_coding" "The Transfer-Encoding field is malformed.";
    /// A transfer coding other than chunked.
    UnknownCoding 501 "unknown_coding" "This transfer coding is not supported.";
    /// `Transfer-Encoding` in HTTP/1.0.
    CodingInHttp10 400 "coding_in_http10" "HTTP/1.0 has no transfer codings.";
    /// `Expect` for something else than `100-continue`.
    BadExpectation 417 "bad_expectation" "This expectation cannot be met.";
    /// CONNECT.
    ConnectRefused 405 "connect_refused" "CONNECT is not allowed.";
    /// CONNECT with a body.
    ConnectWithBody 400 "connect_with_body" "CONNECT has no body.";
    /// TRACE.
    TraceRefused 405 "trace_refused" "TRACE is not allowed.";
    /// The body is larger than the listener allows.
    BodyTooLarge 413 "body_too_large" "The request body is too large.";
    /// A violation of the chunked framing.
    BadChunk 400 "bad_chunk" "The chunked request body is malformed.";
    /// The body did not arrive, or arrived slower than the listener allows.
    BodyTimeout 408 "body_timeout" "The request body took too long.";
}

impl std::fmt::Display for BadRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl std::error::Error for BadRequest {}

impl From<BadRequest> for std::io::Error {
    fn from(bad: BadRequest) -> Self {
        let kind = match bad {
            BadRequest::BodyTimeout | BadRequest::HeadTimeout => std::io::ErrorKind::TimedOut,
            _ => std::io::ErrorKind::InvalidData,
        };
        Self::new(kind, bad)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::BadRequest;

    #[test]
    fn words_are_unique_and_statuses_blame_the_request() {
        let words: HashSet<_> = BadRequest::ALL.iter().map(|bad| bad.word()).collect();
        assert_eq!(words.len(), BadRequest::ALL.len());
        for bad in BadRequest::ALL {
            let status = bad.status();
            assert!((400..500).contains(&status) || [501, 505].contains(&status), "{bad}");
        }
    }
}
