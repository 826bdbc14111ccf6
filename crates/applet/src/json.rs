//! JSON for what programs read from us: `sv --json`, `udhcpc --show --json`. Pure; a writer and no
//! reader.

use std::fmt::Write;

/// An object of these keys and values, in this order. Keys are ours and need no escape; values are
/// JSON already.
pub fn object(out: &mut String, values: &[(&str, String)]) {
    out.push('{');
    for (index, (key, value)) in values.iter().enumerate() {
        out.push_str(if index == 0 { "\"" } else { ",\"" });
        out.push_str(key);
        out.push_str("\":");
        out.push_str(value);
    }
    out.push('}');
}

/// A number, a boolean or JSON as it is; `null` for nothing.
pub fn or_null<T: ToString>(value: Option<T>) -> String {
    value.map_or("null".into(), |value| value.to_string())
}

/// RFC 8259 7: quotation mark, backslash and the control characters are escaped.
pub fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                // Cannot fail: it is a String.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn any_bytes_of_a_name_make_a_string() {
        let name = OsString::from_vec(b"a\"\\\n\x01\x7f\xff\xc3\xa4".to_vec());
        assert_eq!(string(&name.to_string_lossy()), "\"a\\\"\\\\\\u000a\\u0001\\u007f\u{fffd}ä\"");
    }
}
