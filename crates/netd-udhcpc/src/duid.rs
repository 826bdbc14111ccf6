//! The client identifier of RFC 4361: `255 IAID DUID`, the same identity for DHCP and DHCPv6
//! (`--duid`).
//!
//! Pure but for `machine_id`, which reads a file. The IAID is made of the interface's name, so that
//! it survives a changed MAC; a DUID-UUID is made of the machine id, so that it survives a changed
//! card. machine-id(5) forbids to show the id itself to a network, so the client sends a keyed
//! hash. Called by daemon.rs at the start.

use std::io;

/// Where a machine's identity is kept.
const MACHINE_ID: &str = "/etc/machine-id";
/// RFC 4361 section 6.1: the type of a client identifier with a DUID in it.
const TYPE_DUID: u8 = 255;
/// RFC 8415 section 11.4.
const DUID_LL: u16 = 3;
/// RFC 6355.
const DUID_UUID: u16 = 4;
const HTYPE_ETHERNET: u16 = 1;
/// Random, and ours alone: another program's hash of the same id is another number.
const KEYS: [(u64, u64); 2] =
    [(0x9d1c_37f2_5e08_b6a4, 0x41f7_ce93_0a6d_2b58), (0x6be2_0f94_d157_38ca, 0xf30d_8a46_c21e_975b)];

/// What the identifier is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duid {
    /// The MAC.
    LinkLayer,
    /// The machine id.
    Uuid,
}

/// Option 61.
pub fn client_id(duid: Duid, interface: &str, mac: [u8; 6], machine_id: [u8; 16]) -> Vec<u8> {
    let mut out = vec![TYPE_DUID];
    out.extend(iaid(interface).to_be_bytes());
    match duid {
        Duid::LinkLayer => {
            out.extend(DUID_LL.to_be_bytes());
            out.extend(HTYPE_ETHERNET.to_be_bytes());
            out.extend(mac);
        }
        Duid::Uuid => {
            out.extend(DUID_UUID.to_be_bytes());
            for (k0, k1) in KEYS {
                out.extend(siphash(k0, k1, machine_id).to_be_bytes());
            }
        }
    }
    out
}

/// machine-id(5); needed for a DUID-UUID only.
pub fn machine_id(duid: Duid) -> io::Result<[u8; 16]> {
    match duid {
        Duid::LinkLayer => Ok([0; 16]),
        Duid::Uuid => std::fs::read_to_string(MACHINE_ID)
            .and_then(|text| parse(&text).ok_or_else(|| io::Error::other("not a machine id")))
            .map_err(|e| io::Error::new(e.kind(), format!("{MACHINE_ID}: {e}"))),
    }
}

/// 32 hexadecimal digits.
fn parse(text: &str) -> Option<[u8; 16]> {
    let text = text.trim_end();
    (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u128::from_str_radix(text, 16).ok().filter(|id| *id != 0).map(u128::to_be_bytes))?
}

/// FNV-1a, 32 bits: small, and stable for ever.
fn iaid(interface: &str) -> u32 {
    interface.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of 16 bytes.
fn siphash(k0: u64, k1: u64, data: [u8; 16]) -> u64 {
    let (words, _) = data.as_chunks::<8>();
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    // The last word has the length in its highest byte.
    for word in words.iter().map(|w| u64::from_le_bytes(*w)).chain([16 << 56]) {
        v[3] ^= word;
        v = round(round(v));
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        v = round(v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn siphash_is_what_its_authors_printed() {
        // The key 00 01 .. 0f; the second reference vector of length 16 is that of the bytes 00 01
        // .. 0f.
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        let data: [u8; 16] = std::array::from_fn(|n| n as u8);
        assert_eq!(siphash(key.0, key.1, data).to_le_bytes(), [0xdb, 0x9b, 0xc2, 0x57, 0x7f, 0xcc, 0x2a, 0x3f]);
    }

    #[test]
    fn layouts_are_those_of_the_rfcs() {
        let ll = client_id(Duid::LinkLayer, "eth0", MAC, [0; 16]);
        assert_eq!((ll[0], ll.len()), (255, 15));
        assert_eq!(ll[5..], [0, 3, 0, 1, 2, 0, 0, 0, 0, 7]);
        let uuid = client_id(Duid::Uuid, "eth0", MAC, [1; 16]);
        assert_eq!((uuid[0], &uuid[5..7], uuid.len()), (255, &[0, 4][..], 23));
        assert_eq!(ll[1..5], uuid[1..5], "the same interface, the same IAID");
    }

    #[test]
    fn a_uuid_is_stable_and_its_own_for_each_interface_and_machine_and_hides_the_id() {
        let id = [0xa7; 16];
        let of = |interface, mac, id| client_id(Duid::Uuid, interface, mac, id);
        assert_eq!(of("eth0", MAC, id), of("eth0", [9; 6], id), "another card");
        assert_ne!(of("eth0", MAC, id), of("eth1", MAC, id));
        assert_ne!(of("eth0", MAC, id), of("eth0", MAC, [0xa6; 16]));
        assert!(!of("eth0", MAC, id).windows(4).any(|w| w == [0xa7; 4]));
    }

    #[test]
    fn a_machine_id_is_32_digits_and_not_all_zero() {
        let digits = "0123456789abcdef0123456789ABCDEF";
        assert_eq!(parse(&format!("{digits}\n")).unwrap()[..3], [1, 0x23, 0x45]);
        for bad in [
            "",
            "uninitialized\n",
            &digits[1..],
            &format!("{digits}0"),
            &"0".repeat(32),
            "+123456789abcdef0123456789abcdef0",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
