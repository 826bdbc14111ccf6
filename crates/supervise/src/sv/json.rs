//! `sv --json status`: the same facts for a program. PURE. The names of the keys are a promise:
//! sv(8) lists them.

use std::ffi::OsStr;
use std::path::Path;

use super::facts::{Facts, Report};
use super::text;
use applet::control::{ControlError, ServiceDir, Want};
use applet::json::{self, or_null, string};

/// An array of one object for each service, and a line feed. `services`: the directory that names
/// are relative to.
pub(super) fn array(reports: &[Report], services: &Path) -> String {
    let mut out = String::from("[");
    for (index, report) in reports.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        let dir = ServiceDir::resolve_in(services, report.name);
        let log = report.log.as_ref().map(|log| {
            let mut text = String::new();
            object(&mut text, OsStr::new("log"), &dir.path().join("log"), log, None);
            text
        });
        object(&mut out, report.name, dir.path(), &report.main, log.as_deref());
    }
    out.push_str(if reports.is_empty() { "]\n" } else { "\n]\n" });
    out
}

fn object(out: &mut String, name: &OsStr, path: &Path, found: &Result<Facts, ControlError>, log: Option<&str>) {
    let facts = found.as_ref().ok();
    let recorded = facts.and_then(|f| f.recorded.as_ref());
    let up_or_down = |up: bool| if up { "\"up\"" } else { "\"down\"" }.to_owned();
    let supervised = match found {
        Ok(_) | Err(ControlError::Io("supervise/status", _)) => Some(true),
        Err(ControlError::Missing(_) | ControlError::NotRunning(_)) => Some(false),
        Err(ControlError::Full | ControlError::Io(..)) => None,
    };
    let exit = recorded.and_then(|r| r.exit).map(|(code, status)| {
        // The arguments of ./finish: the code is -1 after a signal, and after an end that was not
        // seen (the signal is 0 then).
        let (code, signal) = ((code >= 0).then_some(code), (code < 0 && status != 0).then_some(status & 0x7f));
        format!("{{\"code\":{},\"signal\":{}}}", or_null(code), or_null(signal))
    });
    let values = [
        ("name", string(&name.to_string_lossy())),
        ("path", string(&path.to_string_lossy())),
        ("supervised", or_null(supervised)),
        ("state", or_null(facts.map(|f| string(text::word(f.status.state))))),
        ("pid", or_null(facts.and_then(|f| f.status.pid))),
        ("wanted", or_null(facts.map(|f| up_or_down(f.status.want == Want::Up)))),
        ("normally", or_null(facts.map(|f| up_or_down(f.normally_up)))),
        ("paused", or_null(facts.map(|f| f.status.paused))),
        ("got_term", or_null(facts.map(|f| f.status.got_term))),
        ("seconds", or_null(facts.map(|f| f.age_secs))),
        ("ready", or_null(facts.and_then(|f| f.ready))),
        ("deaths", or_null(recorded.map(|r| r.deaths))),
        ("exit", or_null(exit)),
        ("result", or_null(facts.and_then(Facts::is_done).map(|done| if done { "\"done\"" } else { "\"failed\"" }))),
        ("again", or_null(facts.and_then(|f| f.again_secs))),
        ("error", or_null(found.as_ref().err().map(|e| string(&e.to_string())))),
        ("log", or_null(log)),
    ];
    json::object(out, &values);
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::facts::Recorded;
    use super::super::text::tests::facts;
    use super::*;

    #[test]
    fn each_key_is_there_and_what_is_unknown_is_null() {
        let gone = ControlError::NotRunning(io::Error::from_raw_os_error(nix::errno::Errno::ENXIO as i32));
        let mut a = facts();
        (a.ready, a.recorded) = (Some(true), Some(Recorded { deaths: 2, exit: Some((-1, 9)), once: false }));
        let reports = [
            Report { name: "a".as_ref(), main: Ok(a), log: Some(Ok(facts())) },
            Report { name: "b".as_ref(), main: Err(gone), log: None },
        ];
        let expected = concat!(
            "[\n",
            r#"{"name":"a","path":"/s/a","supervised":true,"state":"run","pid":7,"wanted":"up","normally":"up","#,
            r#""paused":false,"got_term":false,"seconds":61,"ready":true,"deaths":2,"exit":{"code":null,"signal":9},"#,
            r#""result":null,"again":null,"error":null,"log":{"name":"log","path":"/s/a/log","supervised":true,"state":"run","pid":7,"wanted":"up","#,
            r#""normally":"up","paused":false,"got_term":false,"seconds":61,"ready":null,"deaths":null,"exit":null,"#,
            r#""result":null,"again":null,"error":null,"log":null}},"#,
            "\n",
            r#"{"name":"b","path":"/s/b","supervised":false,"state":null,"pid":null,"wanted":null,"normally":null,"#,
            r#""paused":null,"got_term":null,"seconds":null,"ready":null,"deaths":null,"exit":null,"#,
            r#""result":null,"again":null,"error":"runsv not running","log":null}"#,
            "\n]\n"
        );
        assert_eq!(array(&reports, Path::new("/s")), expected);
        assert_eq!(array(&[], Path::new("/s")), "[]\n");
    }

    #[test]
    fn a_slash_behind_a_name_is_not_doubled() {
        let report = Report { name: "./a/".as_ref(), main: Ok(facts()), log: Some(Ok(facts())) };
        let text = array(&[report], Path::new("/s"));
        assert!(text.contains(r#""path":"./a/","#) && text.contains(r#""path":"./a/log","#), "{text}");
    }

    #[test]
    fn the_manual_page_lists_the_keys_in_their_order() {
        let page = include_str!("../../../../man/sv.8");
        let section = page.split_once(".Ss Output of --json").map(|(_, rest)| rest).unwrap();
        let section = section.split_once(".Sh ").unwrap().0;
        let listed = section.lines().filter_map(|line| line.strip_prefix(".It Cm ")).flat_map(|line| line.split(" , "));
        let text = array(&[Report { name: "a".as_ref(), main: Ok(facts()), log: None }], Path::new("/"));
        let keys = text.split('"').filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        let keys: Vec<&str> = keys.filter(|word| !["a", "run", "up", "down"].contains(word)).collect();
        assert_eq!(listed.collect::<Vec<_>>(), keys);
    }
}
