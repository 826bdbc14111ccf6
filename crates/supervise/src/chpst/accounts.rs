//! Users and groups by name.
//!
//! A dynamic build asks the C library, and so whatever nsswitch.conf(5) names. In a static one that
//! would bring along a resolver, nscd's client and a loader of plugins, which fit the C library of
//! one machine only: 160 kB. It reads passwd(5) and group(5) itself. Called by apply.rs.

use nix::unistd::{Gid, Uid};

pub(super) use source::{group, user};

/// A user's own id, and that of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

#[cfg(not(target_feature = "crt-static"))]
mod source {
    use super::{Gid, User};

    pub(in crate::chpst) fn user(name: &str) -> nix::Result<Option<User>> {
        let found = nix::unistd::User::from_name(name)?;
        Ok(found.map(|user| User { uid: user.uid, gid: user.gid }))
    }

    pub(in crate::chpst) fn group(name: &str) -> nix::Result<Option<Gid>> {
        Ok(nix::unistd::Group::from_name(name)?.map(|group| group.gid))
    }
}

#[cfg(target_feature = "crt-static")]
mod source {
    use std::io;

    use nix::errno::Errno;

    use super::{Gid, User, find_group, find_user};

    pub(in crate::chpst) fn user(name: &str) -> nix::Result<Option<User>> {
        Ok(find_user(&read("/etc/passwd")?, name))
    }

    pub(in crate::chpst) fn group(name: &str) -> nix::Result<Option<Gid>> {
        Ok(find_group(&read("/etc/group")?, name))
    }

    /// A file that is not there has no accounts.
    fn read(path: &str) -> nix::Result<Vec<u8>> {
        match std::fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default())),
        }
    }
}

/// passwd(5): `name:password:UID:GID:...`. What is no such line is passed over.
#[cfg(any(test, target_feature = "crt-static"))]
fn find_user(passwd: &[u8], name: &str) -> Option<User> {
    lines_of(passwd, name).find_map(|mut ids| {
        Some(User { uid: Uid::from_raw(number(ids.next()?)?), gid: Gid::from_raw(number(ids.next()?)?) })
    })
}

/// group(5): `name:password:GID:...`
#[cfg(any(test, target_feature = "crt-static"))]
fn find_group(group: &[u8], name: &str) -> Option<Gid> {
    lines_of(group, name).find_map(|mut ids| number(ids.next()?).map(Gid::from_raw))
}

/// The third and further fields of the lines that begin with the name.
#[cfg(any(test, target_feature = "crt-static"))]
fn lines_of<'f>(file: &'f [u8], name: &'f str) -> impl Iterator<Item = impl Iterator<Item = &'f [u8]>> {
    let fields = file.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':'));
    fields.filter_map(move |mut fields| (fields.next()? == name.as_bytes()).then(|| fields.skip(1)))
}

#[cfg(any(test, target_feature = "crt-static"))]
fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n+\nodd\n\xff:x:5:5::/:\nbad:x:1x:2:::\nbad:x:-1:2:::\n\
        nobody:x:65534:65533:nobody:/:/bin/false\nnobody:x:1:1:::\nlast::7:8";

    #[test]
    fn the_first_whole_line_of_the_name_counts() {
        let ids = |uid, gid| Some(User { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) });
        assert_eq!(find_user(PASSWD, "root"), ids(0, 0));
        assert_eq!(find_user(PASSWD, "nobody"), ids(65534, 65533));
        assert_eq!(find_user(PASSWD, "last"), ids(7, 8));
        for name in ["bad", "odd", "+", "", "roo", "root:x", "nobody2"] {
            assert_eq!(find_user(PASSWD, name), None, "{name}");
        }
    }

    #[test]
    fn a_group_is_found_by_its_name_alone() {
        let group = b"adm:x:4:root\nroot:x:0:\nbroken:x\nbroken:x::\nstaff:*:50";
        assert_eq!(find_group(group, "root"), Some(Gid::from_raw(0)));
        assert_eq!(find_group(group, "staff"), Some(Gid::from_raw(50)));
        assert_eq!((find_group(group, "broken"), find_group(group, "4")), (None, None));
    }

    #[test]
    fn the_machines_own_root_is_found_either_way() {
        assert_eq!(user("root").unwrap(), find_user(&std::fs::read("/etc/passwd").unwrap(), "root"));
        assert_eq!(group("root").unwrap(), find_group(&std::fs::read("/etc/group").unwrap(), "root"));
        assert_eq!((user("no such user").unwrap(), group("no such group").unwrap()), (None, None));
    }
}
