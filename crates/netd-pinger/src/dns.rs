//! One DNS question and whether a datagram answers it (RFC 1035 4.1). PURE.
//!
//! Not a resolver: that an answer came is what counts, not what is in it. A server that refuses or
//! fails does so because nothing is behind it, so only "here it is" and "there is no such name" are
//! answers. Called by probe.rs and by the fuzz targets.

/// RFC 1035 3.2.2 and 3.2.4
const TYPE_A: u16 = 1;
const TYPE_NS: u16 = 2;
const CLASS_IN: u16 = 1;
/// Header bits: RFC 1035 4.1.1. Recursion desired.
const RD: u16 = 0x0100;
const QR: u16 = 0x8000;
const OPCODE: u16 = 0x7800;
const RCODE: u16 = 0x000f;
/// NXDOMAIN
const NAME_ERROR: u16 = 3;

/// The question for `name`: its address, or for the root its servers.
pub fn query(id: u16, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [id, RD, 1, 0, 0, 0] {
        out.extend(word.to_be_bytes());
    }
    out.extend(question(name));
    out
}

fn question(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|l| !l.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap_or_default());
        out.extend(label.bytes());
    }
    out.push(0);
    let kind = if name.is_empty() { TYPE_NS } else { TYPE_A };
    out.extend(kind.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    out
}

/// Whether `bytes` are an answer to [`query`] of the same `id` and `name`.
pub fn answers(bytes: &[u8], id: u16, name: &str) -> bool {
    let Some((header, rest)) = bytes.split_first_chunk::<12>() else { return false };
    let [a, b, c, d, e, f, ..] = *header;
    let flags = u16::from_be_bytes([c, d]);
    let question = question(name);
    // Names are compared without case: RFC 1035 2.3.3.
    let same = rest.get(..question.len()).is_some_and(|q| q.eq_ignore_ascii_case(&question));
    u16::from_be_bytes([a, b]) == id
        && flags & QR != 0
        && flags & OPCODE == 0
        && matches!(flags & RCODE, 0 | NAME_ERROR)
        && u16::from_be_bytes([e, f]) == 1
        && same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_laid_out_as_rfc_1035_says() {
        let want = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01";
        assert_eq!(query(0x1234, "example.org"), want);
        assert_eq!(query(1, "").get(12..), Some(&[0, 0, 2, 0, 1][..]));
    }

    #[test]
    fn only_an_answer_to_the_question_is_one() {
        let mut good = query(7, "example.org");
        good[2] |= 0x80;
        assert!(answers(&good, 7, "example.org"));
        assert!(answers(&[&good[..], &[0xc0, 12, 0, 1, 0, 1]].concat(), 7, "Example.ORG"));
        assert!(!answers(&query(7, "example.org"), 7, "example.org"), "the question itself");
        assert!(!answers(&good, 8, "example.org"));
        assert!(!answers(&good, 7, "example.net"));
        for (at, bits, want) in [(3, 3, true), (3, 2, false), (3, 5, false), (2, 0x08, false), (5, 2, false)] {
            let mut other = good.clone();
            other[at] |= bits;
            assert_eq!(answers(&other, 7, "example.org"), want, "byte {at} | {bits}");
        }
        for cut in 0..good.len() {
            assert!(!answers(&good[..cut], 7, "example.org"), "{cut}");
        }
    }
}
