//! What a daemon in the cage may ask of the process that runs its program, as bytes.
//!
//! Pure. The runner has all rights, and an attacker may have taken the daemon over. So a request
//! names neither the program nor its directory, its other arguments or PATH, and this file checks
//! what it does name. One request is one datagram: `R`, the event, then `name=value` for each
//! variable, each ended by a NUL; or `B`. Called by runner.rs.

/// A longer request is refused, in bytes. The variables of the largest reply that a client takes
/// are a third of it.
pub const MAX: usize = 64 * 1024;
/// More variables are refused: a DHCP reply has at most one for each of 254 options, and a few of
/// its own.
const MAX_VARIABLES: usize = 300;
/// Longer names are refused.
const MAX_NAME: usize = 32;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// The program is run.
    Run {
        /// Its argument.
        event: &'a str,
        /// What is added to its environment.
        env: Vec<(&'a str, &'a [u8])>,
    },
    /// The daemon goes to the background.
    Background,
}

/// The bytes of a request to run the program.
pub fn run(event: &str, env: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = [b"R", event.as_bytes(), b"\0"].concat();
    for (name, value) in env {
        bytes.extend([name.as_bytes(), b"=", value, b"\0"].concat());
    }
    bytes
}

/// The bytes of the other request.
pub const BACKGROUND: &[u8] = b"B";

/// The request, when all of it is as it should be.
pub fn parse(bytes: &[u8]) -> Option<Request<'_>> {
    if bytes == BACKGROUND {
        return Some(Request::Background);
    }
    let fields = bytes.strip_prefix(b"R")?.strip_suffix(b"\0")?;
    if bytes.len() > MAX {
        return None;
    }
    let mut fields = fields.split(|b| *b == 0);
    let event = std::str::from_utf8(fields.next()?).ok().filter(|e| is_event(e))?;
    let env: Vec<_> = fields.map(variable).collect::<Option<_>>()?;
    (env.len() <= MAX_VARIABLES).then_some(Request::Run { event, env })
}

fn is_event(event: &str) -> bool {
    (1..=MAX_NAME).contains(&event.len()) && event.bytes().all(|b| b.is_ascii_lowercase())
}

fn variable(field: &[u8]) -> Option<(&str, &[u8])> {
    let at = field.iter().position(|b| *b == b'=')?;
    let (name, value) = (field.get(..at)?, field.get(at + 1..)?);
    let name = std::str::from_utf8(name).ok().filter(|name| is_name(name))?;
    (!value.iter().any(u8::is_ascii_control) && !value.starts_with(b"()")).then_some((name, value))
}

/// Small letters: the variables that a shell, a dynamic linker or a library obeys have names in
/// capitals. The two capital names of ifplugd are listed.
fn is_name(name: &str) -> bool {
    matches!(name, "IFPLUGD_PREVIOUS" | "IFPLUGD_CURRENT")
        || ((1..=MAX_NAME).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
        pairs.iter().map(|(n, v)| ((*n).to_owned(), v.to_vec())).collect()
    }

    #[test]
    fn what_is_asked_for_arrives() {
        let bytes = run("bound", &env(&[("ip", b"192.0.2.1"), ("opt43", b""), ("domain", b"a=b \xc3\xa4")]));
        let want: Vec<(&str, &[u8])> = vec![("ip", b"192.0.2.1"), ("opt43", b""), ("domain", b"a=b \xc3\xa4")];
        assert_eq!(parse(&bytes), Some(Request::Run { event: "bound", env: want }));
        assert_eq!(parse(&run("deconfig", &[])), Some(Request::Run { event: "deconfig", env: vec![] }));
        assert_eq!(parse(BACKGROUND), Some(Request::Background));
    }

    #[test]
    fn what_a_daemon_that_was_taken_over_would_ask_for_is_refused() {
        for (name, value) in [
            ("LD_PRELOAD", &b"/tmp/x.so"[..]),
            ("PATH", b"/tmp"),
            ("BASH_ENV", b"/tmp/x"),
            ("ENV", b"/tmp/x"),
            ("IFS", b"/"),
            ("", b"x"),
            ("1a", b"x"),
            ("a-b", b"x"),
            ("BASH_FUNC_ip%%", b"() { id; }"),
            ("ip", b"() { :;}; id"),
            ("ip", b"a\nb"),
            ("ip", b"a\x1b[2J"),
            ("ip", b"a\x7f"),
        ] {
            assert_eq!(parse(&run("bound", &env(&[(name, value)]))), None, "{name}");
        }
        for event in ["", "-c", "Bound", "bound;id", "/bin/sh", "a\u{e4}", &"a".repeat(MAX_NAME + 1)] {
            assert_eq!(parse(&run(event, &[])), None, "{event}");
        }
        let whole = run("bound", &env(&[("ip", b"1")]));
        for cut in 0..whole.len() {
            assert!(cut == 7 || parse(&whole[..cut]).is_none(), "cut at {cut}");
        }
        assert_eq!(parse(&run("bound", &env(&[("ip", &vec![b'x'; MAX])]))), None, "too long");
        assert_eq!(parse(&run("bound", &vec![("a".into(), vec![]); MAX_VARIABLES + 1])), None, "too many");
        assert_eq!(parse(b"B\0"), None);
    }
}
