//! The root file system of a machine: busybox, programs with their libraries, kernel modules,
//! service directories, and an init.

#![expect(clippy::disallowed_methods, reason = "asks ldd")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Kit;
use super::cpio::Archive;
use crate::lab::find_program;

/// The directory of netsv's applets, which the guest's shell does not have in its way.
pub const APPLETS: &str = "/usr/lib/netsv";

/// A root file system under construction.
#[derive(Debug)]
pub struct Image {
    kit: Kit,
    archive: Archive,
}

impl Image {
    /// Starts with busybox under all its names, and iproute2's ip.
    pub fn new(kit: &Kit) -> Image {
        let mut image = Image { kit: kit.clone(), archive: Archive::default() };
        for directory in ["dev", "proc", "sys", "run", "tmp", "root", "var/log", "var/service", "lib/modules", "etc"] {
            image.archive.directory(directory);
        }
        let busybox = kit.program("busybox");
        image.program(&busybox, "/bin/busybox");
        let names = Command::new(&busybox).arg("--list").output().unwrap_or_else(|e| panic!("busybox: {e}")).stdout;
        // ip must be iproute2's, also for programs that look into /bin first.
        for name in String::from_utf8_lossy(&names).lines().filter(|name| !["busybox", "ip"].contains(name)) {
            image.archive.link(&format!("/bin/{name}"), "busybox");
        }
        image.program(&kit.program("ip"), "/sbin/ip");
        image
    }

    /// Adds a program of this machine, with its libraries.
    pub fn program(&mut self, from: &Path, to: &str) {
        let said = Command::new("ldd").arg(from).env("LD_LIBRARY_PATH", self.kit.libraries()).output();
        let said = said.unwrap_or_else(|e| panic!("ldd: {e}")).stdout;
        for line in String::from_utf8_lossy(&said).lines() {
            assert!(!line.contains("not found"), "{}: {line}", from.display());
            // "libc.so.6 => /lib/x/libc.so.6 (0x7f..)", or the loader: "/lib64/ld-linux-x86-64.so.2
            // (0x7f..)".
            let Some(path) = line.split_whitespace().find(|word| word.starts_with('/')) else { continue };
            let loader = !line.contains("=>");
            let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
            let to = if loader { path.to_owned() } else { format!("/usr/lib/{name}") };
            if !self.archive.has(&to) {
                self.copy(Path::new(path), &to);
            }
        }
        self.copy(from, to);
    }

    /// Adds netsv, with every applet as a link in [`APPLETS`].
    pub fn netsv(&mut self, netsv: &Path) {
        self.program(netsv, "/bin/netsv");
        let said = Command::new(netsv).arg("--list").output().unwrap_or_else(|e| panic!("{}: {e}", netsv.display()));
        for applet in String::from_utf8_lossy(&said.stdout).lines() {
            self.archive.link(&format!("{APPLETS}/{applet}"), "/bin/netsv");
        }
    }

    /// Adds services/KIND of the repository as /var/service/NAME.
    pub fn service(&mut self, kind: &str, name: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services").join(kind);
        self.tree(&from, &format!("/var/service/{name}"));
    }

    /// Adds a file with this text.
    pub fn file(&mut self, name: &str, text: &str) {
        self.archive.file(name, 0o644, text.as_bytes());
    }

    /// Adds an executable with this text.
    pub fn script(&mut self, name: &str, text: &str) {
        self.archive.file(name, 0o755, text.as_bytes());
    }

    /// Adds a file of this machine.
    fn copy(&mut self, from: &Path, to: &str) {
        let content = fs::read(from).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        let mode = fs::metadata(from).map_or(0o644, |m| m.permissions().mode());
        self.archive.file(to, mode, &content);
    }

    /// Adds kernel modules and those that they need. /lib/modules/LIST names the files in the order
    /// in which they must be loaded.
    pub fn modules(&mut self, list: &str, names: &[&str]) {
        let mut order = String::new();
        for path in self.kit.modules(names) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let to = format!("/lib/modules/{name}");
            if !self.archive.has(&to) {
                self.copy(&path, &to);
            }
            order.push_str(&format!("{to}\n"));
        }
        self.file(&format!("/lib/modules/{list}"), &order);
    }

    /// Writes the archive.
    pub fn write(self, path: &Path) {
        fs::write(path, self.archive.finish()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    fn tree(&mut self, from: &Path, to: &str) {
        self.archive.directory(to);
        let mut entries: Vec<_> =
            fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())).flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let to = format!("{to}/{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => self.tree(&entry.path(), &to),
                false => self.copy(&entry.path(), &to),
            }
        }
    }
}

impl Kit {
    /// Finds the parts that testkit/fetch-vm has fetched. An error says how to get them.
    pub fn find() -> Result<Kit, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/vm");
        if !root.join("done").is_file() {
            return Err("no machine below target/vm: testkit/fetch-vm fetches it".to_owned());
        }
        let root = fs::canonicalize(&root).map_err(|e| format!("{}: {e}", root.display()))?;
        let releases = fs::read_dir(root.join("lib/modules")).map_err(|e| format!("target/vm/lib/modules: {e}"))?;
        let modules = releases.flatten().next().ok_or("no modules below target/vm")?.path();
        Ok(Kit { root, modules })
    }

    /// A program of the kit, or else of this machine.
    pub fn program(&self, name: &str) -> PathBuf {
        let below = ["bin", "sbin", "usr/bin", "usr/sbin"].map(|dir| self.root.join("tree").join(dir).join(name));
        let found = below.into_iter().find(|path| path.is_file()).or_else(|| crate::original(name));
        found.or_else(|| find_program(name)).unwrap_or_else(|| panic!("{name}: neither below target/vm nor in PATH"))
    }

    /// A file below target/vm/tree.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join("tree").join(name)
    }

    /// A value for LD_LIBRARY_PATH: the libraries of the kit's programs that this machine lacks.
    pub(super) fn libraries(&self) -> String {
        let dirs = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|dir| self.file(dir));
        dirs.map(|dir| dir.display().to_string()).join(":")
    }

    /// The files of the modules and of all that they need, in the order in which they must be
    /// loaded. Modules in the kernel itself have no file.
    fn modules(&self, names: &[&str]) -> Vec<PathBuf> {
        let read = |name| fs::read_to_string(self.modules.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (text, builtin) = (read("modules.dep"), read("modules.builtin"));
        let mut files: Vec<&str> = Vec::new();
        for name in names {
            let is_it = |line: &&str| line.split(':').next().is_some_and(|file| file.ends_with(&format!("/{name}.ko")));
            let Some(line) = text.lines().find(is_it) else {
                assert!(builtin.lines().any(|line| is_it(&line)), "no kernel module {name}");
                continue;
            };
            let (file, needs) = line.split_once(':').unwrap_or((line, ""));
            // modules.dep(5) lists the module that must be loaded first at the end.
            files.extend(needs.split_whitespace().rev().chain([file]));
        }
        let mut seen = BTreeSet::new();
        files.retain(|file| seen.insert(*file));
        files.iter().map(|file| self.modules.join(file)).collect()
    }
}
