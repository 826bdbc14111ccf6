//! An archive in the cpio format "newc", which the kernel unpacks as its first root (Linux
//! Documentation/driver-api/early-userspace/buffer-format.rst). Writing only. image.rs calls it.

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// The entries so far.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Whether there is an entry of this name already.
    pub(super) fn has(&self, name: &str) -> bool {
        self.names.contains(name.trim_start_matches('/'))
    }

    /// Adds a directory, with its parents.
    pub(super) fn directory(&mut self, name: &str) {
        let name = name.trim_start_matches('/');
        if name.is_empty() || self.names.contains(name) {
            return;
        }
        self.above(name);
        self.entry(name, DIRECTORY, &[]);
    }

    /// Adds a regular file with these permissions.
    pub(super) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.above(name);
        self.entry(name, FILE | (permissions & 0o7777), content);
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, name: &str, target: &str) {
        self.above(name);
        self.entry(name, LINK, target.as_bytes());
    }

    /// Returns the whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn above(&mut self, name: &str) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let name = name.trim_start_matches('/');
        let number = self.names.len() + 1;
        self.names.insert(name.to_owned());
        // Magic; inode, mode, owner, group, links, time, size, two device numbers, size of the name
        // with its NUL, checksum.
        let fields = [number as u32, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_its_directories_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.file("/a/b", 0o755, b"text!");
        archive.link("a/c", "b");
        assert!(archive.has("/a") && archive.has("a/b") && !archive.has("b"));
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 4);
        assert_eq!(bytes.len() % 4, 0);
        let at = text.find("a/b\0").unwrap();
        assert_eq!(&text[at - 110 + 14..at - 110 + 22], "000081ed", "mode of a/b");
        assert_eq!(&text[at - 110 + 54..at - 110 + 62], "00000005", "size of a/b");
        assert_eq!(&bytes[(at + 4).next_multiple_of(4)..][..5], b"text!");
    }
}
