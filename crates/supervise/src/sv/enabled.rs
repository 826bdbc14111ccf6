//! `sv enable`, `sv disable`, `sv list`: which services runsvdir has, as links in SVDIR to the
//! directory where all services live. runit has no such words; there the links are made by hand.
//!
//! What it is not: starting and stopping. A file `down` stays as it is: it is the service's own
//! word. Called by sv.rs.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use super::facts::{self, Reader};
use super::{Run, text};
use crate::spawn;
use applet::control::{ControlError, ServiceDir, error_text, is_path, services};

/// Where the services are that may be enabled, in Debian and Void.
const DEFAULT_SOURCE: &str = "/etc/sv";
const SOURCE: &str = "SVSOURCE";

/// A word that counts as a whole: of others the first letter may be enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Enable,
    Disable,
    List,
}

pub(super) fn word(text: &OsStr) -> Option<Word> {
    match text.as_bytes() {
        b"enable" => Some(Word::Enable),
        b"disable" => Some(Word::Disable),
        b"list" => Some(Word::List),
        _ => None,
    }
}

fn source() -> PathBuf {
    env::var_os(SOURCE).filter(|value| !value.is_empty()).unwrap_or(DEFAULT_SOURCE.into()).into()
}

impl Run {
    /// `enable` or `disable`.
    pub(super) fn link(&mut self, word: Word, names: &[OsString]) {
        for name in names {
            let (done, result) =
                if word == Word::Enable { ("enabled", enable(name)) } else { ("disabled", disable(name)) };
            match result {
                Ok(note) => self.tell(&[b"ok: ", name.as_bytes(), b": ", done.as_bytes(), note.as_bytes()]),
                Err(why) => {
                    self.tell(&[b"fail: ", name.as_bytes(), b": ", why.as_bytes()]);
                    self.fail();
                }
            }
        }
        self.flush();
    }

    /// A line for each service that is enabled, or could be.
    pub(super) fn list(&mut self) -> io::Result<()> {
        let services = services();
        let enabled = facts::names(&services)?;
        let mut all = match facts::names(&source()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        all.extend(enabled.iter().cloned());
        applet::sort::sort(&mut all);
        all.dedup();
        let width = all.iter().map(|name| text::printable(&name.to_string_lossy()).chars().count()).max().unwrap_or(0);
        for name in all {
            let is = if enabled.contains(&name) { "enabled " } else { "disabled" };
            let state = state(&self.reader, &services, &name);
            let shown = text::printable(&name.to_string_lossy());
            self.tell(&[format!("{is}  {shown:width$}  {state}").as_bytes()]);
        }
        self.flush();
        Ok(())
    }
}

/// `-`: no runsv runs there.
fn state(reader: &Reader, services: &Path, name: &OsStr) -> &'static str {
    match reader.facts(&ServiceDir::resolve_in(services, name)) {
        Ok(facts) => text::word(facts.status.state),
        Err(ControlError::Missing(_) | ControlError::NotRunning(_)) => "-",
        Err(_) => "?",
    }
}

/// The service directory that is meant, and its link.
fn places(name: &OsStr) -> Result<(PathBuf, PathBuf), String> {
    let dir = if is_path(name) { PathBuf::from(name) } else { source().join(name) };
    let called = spawn::called(&dir).map_err(|e| ControlError::Missing(e).to_string())?;
    // An empty one would be the directory of all of them.
    if name.is_empty() || called.is_empty() || called.as_bytes().starts_with(b".") {
        return Err("not the name of a service".to_owned());
    }
    let link = services().join(called);
    Ok((dir, link))
}

/// What there is to say besides.
fn enable(name: &OsStr) -> Result<&'static str, String> {
    let (dir, link) = places(name)?;
    // One that lives in SVDIR itself is enabled, too.
    let lives_there = fs::symlink_metadata(&link).is_ok_and(|found| found.is_dir());
    if !lives_there {
        let missing = |e| ControlError::Missing(e).to_string();
        let found = fs::metadata(dir.join(".")).map_err(missing)?;
        match fs::metadata(&link) {
            Ok(there) if is_same(&there, &found) => {}
            Ok(_) => return Err(format!("{} is another", link.display())),
            // Nothing is there, or a link that leads nowhere.
            Err(_) => {
                make(&dir, &link).map_err(|e| format!("unable to create {}: {}", link.display(), error_text(&e)))?
            }
        }
    }
    Ok(if link.join("down").exists() { ", normally down" } else { "" })
}

/// Whole at once, whatever was there: runsvdir watches.
fn make(dir: &Path, link: &Path) -> io::Result<()> {
    let mut new = OsString::from(".");
    new.push(link.file_name().unwrap_or_default());
    new.push(".new");
    let new = link.with_file_name(new);
    let _ = fs::remove_file(&new);
    symlink(std::path::absolute(dir)?, &new)?;
    fs::rename(&new, link).inspect_err(|_| drop(fs::remove_file(&new)))
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn disable(name: &OsStr) -> Result<&'static str, String> {
    let (dir, link) = places(name)?;
    // A path names a directory, and not only a link. Where either is gone the name decides.
    if is_path(name)
        && let (Ok(there), Ok(found)) = (fs::metadata(&link), fs::metadata(&dir))
        && !is_same(&there, &found)
    {
        return Err(format!("{} is another", link.display()));
    }
    let unable = |e: io::Error| format!("unable to remove {}: {}", link.display(), error_text(&e));
    match fs::symlink_metadata(&link) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(""),
        Err(e) => Err(unable(e)),
        Ok(found) if found.is_symlink() => fs::remove_file(&link).map(|()| "").map_err(unable),
        Ok(_) => Err(format!("{} is no link: not removed", link.display())),
    }
}
