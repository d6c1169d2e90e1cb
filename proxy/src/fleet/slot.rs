//! The slot of a key, and the key of a command (Redis Cluster specification, "Key distribution model").

use redis::{Arg, Cmd};

/// One of 16384.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Slot(u16);

impl Slot {
    /// How many there are.
    pub(super) const COUNT: u16 = 16384;
    /// The last one.
    pub(super) const LAST: Self = Self(Self::COUNT - 1);

    /// A slot by its number.
    pub(super) fn numbered(number: u16) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    /// Its number.
    pub(super) fn number(self) -> u16 {
        self.0
    }

    /// Where a key is: only what stands in the first braces counts, if anything does.
    pub(super) fn of(key: &[u8]) -> Self {
        let braced = key.iter().position(|byte| *byte == b'{').and_then(|open| {
            let rest = &key[open + 1..];
            let close = rest.iter().position(|byte| *byte == b'}')?;
            (close > 0).then(|| &rest[..close])
        });
        Self(crc16(braced.unwrap_or(key)) % Self::COUNT)
    }
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// Who a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Whoever owns the slot.
    Key(Slot),
    /// All masters, and one answer is enough.
    Any,
    /// All masters, and all have to answer.
    Every,
}

/// Who a command is for, of those that the edge sends: the first argument is the key, unless it says how many there are.
pub(super) fn of(command: &Cmd) -> Target {
    let mut words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => word,
        _ => b"".as_slice(),
    });
    let name = words.next().unwrap_or_default();
    if name.eq_ignore_ascii_case(b"PING") {
        return Target::Every;
    }
    if name.eq_ignore_ascii_case(b"SCRIPT") {
        return Target::Any;
    }
    let is_script = name.eq_ignore_ascii_case(b"EVAL") || name.eq_ignore_ascii_case(b"EVALSHA");
    let key = if is_script { words.nth(2) } else { words.next() };
    key.map_or(Target::Any, |key| Target::Key(Slot::of(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_where_the_specification_puts_them() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(Slot::of(b"foo"), Slot(12182));
        assert_eq!(Slot::of(b"{user1000}.following"), Slot::of(b"user1000"));
        assert_eq!(
            Slot::of(b"foo{}{bar}"),
            Slot(crc16(b"foo{}{bar}") % 16384),
            "nothing in the first braces"
        );
        assert_eq!(Slot::of(b"foo{{bar}}zap"), Slot::of(b"{bar"));
    }

    #[test]
    fn a_command_goes_to_the_owner_of_its_key() {
        let get = redis::cmd("GET").arg("k").clone();
        assert_eq!(of(&get), Target::Key(Slot::of(b"k")));
        let script = redis::cmd("EVALSHA").arg("hash").arg(1).arg("k").arg("argument").clone();
        assert_eq!(of(&script), Target::Key(Slot::of(b"k")));
        assert_eq!(of(redis::cmd("SCRIPT").arg("LOAD").arg("return 1")), Target::Any);
        assert_eq!(of(&redis::cmd("PING")), Target::Every);
    }
}
