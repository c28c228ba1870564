//! Messages on a stream: a header with the length, then JSON.
//!
//! Written here and not taken from a library because a server must outlive what it cannot read: one bad message
//! is told to the client and the reading goes on with the next.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// More than any message; a longer one is passed over instead of kept in memory.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// What the client said.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A request, a notification, or a response to a request of ours.
    Message(Message),
    /// Something else, with the code and the words to answer it with.
    Malformed(i64, String),
}

/// A message's own fields. A request has an id and a method, a notification only a method, a response only an id.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    pub(super) id: Option<Value>,
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) params: Value,
}

/// Why a request has no result.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    pub(super) code: i64,
    pub(super) message: String,
}

impl Refusal {
    /// JSON-RPC's own codes.
    pub(super) const PARSE_ERROR: i64 = -32700;
    pub(super) const INVALID_REQUEST: i64 = -32600;
    pub(super) const METHOD_NOT_FOUND: i64 = -32601;
    pub(super) const INVALID_PARAMS: i64 = -32602;
    pub(super) const INTERNAL_ERROR: i64 = -32603;

    /// What was asked is understood and cannot be done.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { code: lsp_types::error_codes::REQUEST_FAILED, message: message.into() }
    }

    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Reads one message; none at the end of the stream.
pub(super) fn read(input: &mut impl BufRead) -> io::Result<Option<Incoming>> {
    let Some(length) = header(input)? else { return Ok(None) };
    let malformed = |code, message: String| Ok(Some(Incoming::Malformed(code, message)));
    let Some(length) = length else {
        return malformed(Refusal::PARSE_ERROR, "a message without a Content-Length".into());
    };
    if length > BODY_BYTES_MAX {
        io::copy(&mut input.take(length), &mut io::sink())?;
        return malformed(Refusal::PARSE_ERROR, format!("a message of {length} bytes is too long"));
    }
    let mut body = Vec::new();
    if input.take(length).read_to_end(&mut body)? < length as usize {
        return Ok(None);
    }
    let value: Value = match serde_json::from_slice(&body) {
        Ok(value) => value,
        Err(error) => return malformed(Refusal::PARSE_ERROR, format!("not JSON: {error}")),
    };
    match Message::deserialize(value) {
        Ok(message) if message.id.is_some() || message.method.is_some() => Ok(Some(Incoming::Message(message))),
        Ok(_) => malformed(Refusal::INVALID_REQUEST, "neither a request nor a notification nor a response".into()),
        Err(error) => malformed(Refusal::INVALID_REQUEST, format!("not a message: {error}")),
    }
}

/// Reads a header to its empty line: the length it gives, if it gives one; none at the end of the stream.
fn header(input: &mut impl BufRead) -> io::Result<Option<Option<u64>>> {
    const NAME: &str = "content-length:";
    let mut length = None;
    let mut lines = 0;
    loop {
        let mut line = Vec::new();
        if input.take(1 << 16).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line).to_ascii_lowercase();
        if line.trim().is_empty() {
            // An empty line before any header ends nothing.
            if lines > 0 {
                return Ok(Some(length));
            }
            continue;
        }
        lines += 1;
        // After a body that was longer than it said, the name stands in the middle of a line.
        if let Some(at) = line.rfind(NAME) {
            length = line[at + NAME.len()..].trim().parse().ok();
        }
    }
}

/// Writes one message.
pub(super) fn write(output: &mut impl Write, message: &Value) -> io::Result<()> {
    let body = message.to_string();
    write!(output, "Content-Length: {}\r\n\r\n{body}", body.len())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reading_goes_on_after_what_is_malformed() {
        let good = |n: u32| {
            let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{n},\"method\":\"é\"}}");
            format!("Content-Length: {}\r\n\r\n{body}", body.len())
        };
        let bad = "Content-Length: 4\r\n\r\n{]}!no header\r\n\r\nContent-Length: x\r\n\r\nContent-Length: 2\r\n\r\n[]";
        let long = "Content-Length: 3\r\n\r\n123456";
        let text = [&good(1), bad, &good(2), long, &good(3), "Content-Length: 99\r\n\r\n{"].concat();
        let mut input = io::Cursor::new(text);
        let mut heard = Vec::new();
        while let Some(incoming) = read(&mut input).expect("readable") {
            heard.push(match incoming {
                Incoming::Message(message) => message.id.expect("an id").to_string(),
                Incoming::Malformed(code, _) => code.to_string(),
            });
        }
        assert_eq!(heard, ["1", "-32700", "-32700", "-32700", "-32600", "2", "-32600", "3"]);
    }
}
