//! Reading fw's input: the two directories of `*.ipconf` files and fw.conf.
//!
//! Shell. A malformed file is named with its line and skipped, and its last good content takes its
//! place: fw keeps a copy of every good file in `.good` of the dynamic directory. Called by
//! input.rs.

use netd_core::record::text;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use netd::disk;
use netd::ipconf;

use super::policy::{self, Policy};
use crate::record::{self, Entry};

/// The content of the files, and the faults in them.
#[derive(Debug, Default)]
pub struct Files {
    /// Records, static ones first, each directory in glob order.
    pub entries: Vec<Entry>,
    /// Faults in the administrator's files, and unreadable files. Each makes the run fail in the
    /// end.
    pub errors: Vec<String>,
    /// Faults in the daemons' files. None of them makes the run fail.
    pub notes: Vec<String>,
    /// File name in `.good` and content, of every file that is good now.
    good: Vec<(OsString, Vec<u8>)>,
    /// Names in `.good` that have to stay, because their file is malformed now.
    kept: Vec<OsString>,
}

/// Reads both directories.
pub fn read(static_dir: &Path, dynamic: &Path) -> Files {
    let mut files = Files::default();
    let good = dynamic.join(".good");
    for (dir, is_static) in [(static_dir, true), (dynamic, false)] {
        match ipconf::list(dir) {
            Ok(paths) => paths.iter().for_each(|path| files.file(dir, path, is_static, &good)),
            Err(e) => {
                let what = format!("unable to read {}: {}: its last good content is kept", dir.display(), text(&e));
                files.errors.push(what);
                files.all_last_good(dir, is_static, &good);
            }
        }
    }
    files
}

/// fw.conf's name in `.good`.
const POLICY: &str = "policy";

/// How names of records begin in `.good`.
fn kind(is_static: bool) -> &'static str {
    if is_static { "static." } else { "dynamic." }
}

fn text(error: &io::Error) -> String {
    applet::control::error_text(error)
}

impl Files {
    fn file(&mut self, dir: &Path, path: &Path, is_static: bool, good_dir: &Path) {
        let mut name = OsString::from(kind(is_static));
        name.push(path.file_name().unwrap_or_default());
        let read = ipconf::read_bytes(dir, path);
        // The file was withdrawn after the directory was listed: it counts as gone. A link that
        // leads nowhere is still there.
        if read.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) && path.symlink_metadata().is_err() {
            return;
        }
        // An unreadable file is an error. A fault in a file's content is an error when the
        // administrator has written the file.
        let (error, is_wrong) = match read {
            Err(e) => (format!("{}: {}", path.display(), text(&e)), true),
            Ok(bytes) => match understand(path, &bytes, is_static) {
                Ok(all) => {
                    self.complain(all.complaints, is_static);
                    self.entries.extend(all.entries);
                    self.good.push((name, bytes));
                    return;
                }
                Err(error) => (error, is_static),
            },
        };
        let fate = match self.last_good(path, name, is_static, good_dir) {
            true => "its last good content is kept",
            false => "file skipped",
        };
        self.complain(vec![format!("{error}: {fate}")], is_wrong);
    }

    fn complain(&mut self, lines: Vec<String>, is_wrong: bool) {
        if is_wrong { self.errors.extend(lines) } else { self.notes.extend(lines) }
    }

    /// Takes the last good content of a file. Returns whether there is any.
    fn last_good(&mut self, path: &Path, name: OsString, is_static: bool, good_dir: &Path) -> bool {
        let last = ipconf::read_bytes(good_dir, &good_dir.join(&name));
        // fw complained about its single words when the content was new.
        let last = last.ok().and_then(|bytes| understand(path, &bytes, is_static).ok());
        let is_known = last.is_some();
        self.entries.extend(last.into_iter().flat_map(|all| all.entries));
        self.kept.push(name);
        is_known
    }

    /// The same for all files of a directory that cannot be read: a failing disk must not take an
    /// address away.
    fn all_last_good(&mut self, dir: &Path, is_static: bool, good_dir: &Path) {
        for copy in ipconf::list(good_dir).unwrap_or_default() {
            let name = copy.file_name().unwrap_or_default();
            if let Some(own) = name.as_bytes().strip_prefix(kind(is_static).as_bytes()) {
                self.last_good(&dir.join(OsStr::from_bytes(own)), name.to_owned(), is_static, good_dir);
            }
        }
    }

    /// Reads fw.conf. Without the file the defaults count. Of a malformed file the last good
    /// content counts as a whole: a default in place of a wrong line could shut the administrator
    /// out, or open a port that he had closed.
    pub fn policy(&mut self, config: &Path, dynamic: &Path) -> Policy {
        Policy { file: config.display().to_string(), ..self.read_policy(config, dynamic) }
    }

    fn read_policy(&mut self, config: &Path, dynamic: &Path) -> Policy {
        let name = OsString::from(POLICY);
        let path = config.display();
        let (policy, errors, fate) = match read_config(config) {
            Ok(bytes) => {
                let (policy, errors) = policy::parse(&bytes);
                if errors.is_empty() {
                    self.good.push((name, bytes));
                    return policy;
                }
                let errors = errors.iter().map(|e| format!("{path}:{}: {}", e.line, e.what)).collect();
                (policy, errors, "line skipped")
            }
            // A link that leads nowhere is still there.
            Err(e) if e.kind() == io::ErrorKind::NotFound && config.symlink_metadata().is_err() => {
                return Policy::default();
            }
            Err(e) => (Policy::default(), vec![format!("unable to read {path}: {}", text(&e))], "the defaults count"),
        };
        let good = dynamic.join(".good");
        let last = ipconf::read_bytes(&good, &good.join(&name)).ok().map(|bytes| policy::parse(&bytes).0);
        let fate = if last.is_some() { "its last good content is kept" } else { fate };
        self.errors.extend(errors.into_iter().map(|e: String| format!("{e}: {fate}")));
        self.kept.push(name);
        last.unwrap_or(policy)
    }

    /// Keeps this content in `.good`, or what is there under that name.
    pub(super) fn keep(&mut self, name: OsString, content: Option<Vec<u8>>) {
        match content {
            Some(bytes) => self.good.push((name, bytes)),
            None => self.kept.push(name),
        }
    }

    /// Brings `.good` up to date: writes only copies that differ, and removes copies whose file is
    /// gone.
    pub fn keep_good(&self, dynamic: &Path) -> io::Result<()> {
        let dir = dynamic.join(".good");
        let is_wanted = |name: &OsString| self.good.iter().any(|(n, _)| n == name) || self.kept.contains(name);
        match fs::read_dir(&dir) {
            Ok(files) => {
                for name in files.filter_map(|f| f.ok().map(|f| f.file_name())).filter(|n| !is_wanted(n)) {
                    fs::remove_file(dir.join(name))?;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&dir)?,
            Err(e) => return Err(e),
        }
        for (name, bytes) in &self.good {
            let path: PathBuf = dir.join(name);
            if !is_content(&path, bytes) {
                disk::replace(&path, bytes, None)?;
            }
        }
        Ok(())
    }
}

/// Whether the file holds these bytes and no more. It is read at once, up to one byte more.
fn is_content(path: &Path, bytes: &[u8]) -> bool {
    let mut old = vec![0; bytes.len() + 1];
    let read = File::open(path).and_then(|mut file| file.read(&mut old));
    read.is_ok_and(|read| old.get(..read) == Some(bytes))
}

/// A fault, for `fw check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// File, line and what is wrong.
    pub text: String,
    /// Not only a warning.
    pub is_error: bool,
}

impl Fault {
    /// A run would fail.
    pub fn error(text: &str) -> Fault {
        Fault { text: text.to_owned(), is_error: true }
    }

    /// A run would do all but this.
    pub fn warning(text: &str) -> Fault {
        Fault { text: text.to_owned(), is_error: false }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.is_error { "error" } else { "warning" }, self.text)
    }
}

/// Reads all files as they are: what is good in them, and every fault. No last good content takes
/// the place of anything.
pub fn inspect(static_dir: &Path, dynamic: &Path, config: &Path) -> (Vec<Entry>, Policy, Vec<Fault>) {
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    for (dir, is_static) in [(static_dir, true), (dynamic, false)] {
        let paths = ipconf::list(dir).unwrap_or_else(|e| {
            faults.push(Fault::error(&format!("unable to read {}: {}", dir.display(), text(&e))));
            Vec::new()
        });
        for path in paths {
            // A fault of a daemon never fails a run; a file that cannot be read always does.
            let of = |text: &str, is_error| Fault { text: text.to_owned(), is_error };
            match ipconf::read_bytes(dir, &path) {
                Err(e) => faults.push(of(&format!("{}: {}", path.display(), text(&e)), true)),
                Ok(bytes) => match understand(&path, &bytes, is_static) {
                    Ok(all) => {
                        faults.extend(all.complaints.iter().map(|text| of(text, is_static)));
                        entries.extend(all.entries);
                    }
                    Err(text) => faults.push(of(&text, is_static)),
                },
            }
        }
    }
    let policy = match read_config(config) {
        Ok(bytes) => {
            let (policy, errors) = policy::parse(&bytes);
            let place = config.display();
            faults.extend(errors.iter().map(|e| Fault::error(&format!("{place}:{}: {}", e.line, e.what))));
            Policy { file: place.to_string(), ..policy }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && config.symlink_metadata().is_err() => Policy::default(),
        Err(e) => {
            faults.push(Fault::error(&format!("unable to read {}: {}", config.display(), text(&e))));
            Policy::default()
        }
    };
    (entries, policy, faults)
}

/// A file that was understood.
struct Understood {
    entries: Vec<Entry>,
    /// Records that have no interface, and words that were left out, each with its place.
    complaints: Vec<String>,
}

/// All records of a file, or the reason why the file cannot be used.
fn understand(path: &Path, bytes: &[u8], is_static: bool) -> Result<Understood, String> {
    let path = path.display();
    let records = text::parse(bytes).map_err(|e| format!("{path}:{e}"))?;
    let mut all = Understood { entries: Vec::new(), complaints: Vec::new() };
    for record in &records {
        let origin = format!("{path}:{}", record.line);
        match record::read(record, is_static, origin.clone()) {
            Ok((entry, left_out)) => {
                all.entries.push(entry);
                all.complaints.extend(left_out.iter().map(|f| format!("{path}:{}: {f}: left out", f.line)));
            }
            Err(fault) if fault.is_nameless() => all.complaints.push(format!("{origin}: {fault}: record skipped")),
            Err(fault) => return Err(format!("{path}:{}: {fault}", fault.line)),
        }
    }
    Ok(all)
}

/// fw.conf under the rules for records; a symbolic link may lead anywhere.
pub(super) fn read_config(config: &Path) -> io::Result<Vec<u8>> {
    let real = config.canonicalize()?;
    ipconf::read_bytes(real.parent().unwrap_or(&real), &real)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_withdrawn_while_the_directory_is_read_is_no_error_and_not_kept() {
        let dir = std::env::temp_dir().join(format!("fw-input-{}", std::process::id()));
        let good = dir.join(".good");
        fs::create_dir_all(&good).unwrap();
        fs::write(good.join("dynamic.link_eth0.ipconf"), "let cfg=cfg+1\nif[$cfg]=eth0\nhealth[$cfg]=down\n").unwrap();
        let path = dir.join("link_eth0.ipconf");
        let mut files = Files::default();
        files.file(&dir, &path, false, &good);
        assert!(files.entries.is_empty() && files.errors.is_empty() && files.kept.is_empty(), "{:?}", files.errors);
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        files.file(&dir, &path, false, &good);
        assert_eq!((files.entries.len(), files.errors.len(), files.kept.len()), (1, 1, 1));
        fs::remove_dir_all(&dir).unwrap();
    }
}
