//! What the kernel says of an open file: the lines of `/proc/PID/fdinfo/N` (proc(5)).

/// The text of one.
#[derive(Clone, Copy)]
pub(super) struct Info<'a>(pub(super) &'a str);

/// A number of lines of one file: what an epoll instance watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) fd: u32,
    pub(super) events: u32,
    pub(super) data: u64,
    /// Position, inode and device of what is watched, where the kernel says it.
    pub(super) file: Option<(u64, u64, u32)>,
}

/// What a timerfd stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) clock: u32,
    pub(super) ticks: u64,
    pub(super) settime_flags: u32,
    /// What remains and the interval, in seconds and nanoseconds.
    pub(super) value: (u64, u64),
    pub(super) interval: (u64, u64),
}

impl<'a> Info<'a> {
    /// What stands behind `key:` in each line that begins so.
    pub(super) fn all(self, key: &'static str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter_map(move |line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim()))
    }

    fn first(self, key: &'static str) -> Option<&'a str> {
        self.all(key).next()
    }

    pub(super) fn flags(self) -> Option<u32> {
        u32::from_str_radix(self.first("flags")?, 8).ok()
    }

    /// The position; some devices have negative ones, which images have in the same bits.
    pub(super) fn position(self) -> Option<u64> {
        self.first("pos")?.parse::<i64>().ok().map(|position| position as u64)
    }

    /// The count of an eventfd.
    pub(super) fn count(self) -> Option<u64> {
        u64::from_str_radix(self.first("eventfd-count")?, 16).ok()
    }

    /// The signals of a signalfd.
    pub(super) fn signals(self) -> Option<u64> {
        u64::from_str_radix(self.first("sigmask")?, 16).ok()
    }

    pub(super) fn timer(self) -> Option<Timer> {
        Some(Timer {
            clock: self.first("clockid")?.parse().ok()?,
            ticks: self.first("ticks")?.parse().ok()?,
            settime_flags: u32::from_str_radix(self.first("settime flags")?, 8).ok()?,
            value: pair(self.first("it_value")?)?,
            interval: pair(self.first("it_interval")?)?,
        })
    }

    pub(super) fn watches(self) -> Option<Vec<Watch>> {
        self.all("tfd").map(watch).collect()
    }
}

/// `(SECONDS, NANOSECONDS)`.
fn pair(text: &str) -> Option<(u64, u64)> {
    let (seconds, nanoseconds) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
    Some((seconds.parse().ok()?, nanoseconds.parse().ok()?))
}

/// `FD events: EVENTS data: DATA  pos:POSITION ino:INODE sdev:DEVICE`, hexadecimal but for the first and the position.
fn watch(line: &str) -> Option<Watch> {
    let line = line.replace(':', " ");
    let words: Vec<&str> = line.split_whitespace().collect();
    let (head, file) = match *words {
        [fd, "events", events, "data", data] => ([fd, events, data], None),
        [fd, "events", events, "data", data, "pos", position, "ino", inode, "sdev", device] => {
            ([fd, events, data], Some((position, inode, device)))
        }
        _ => return None,
    };
    let file = match file {
        Some((position, inode, device)) => Some((
            position.parse::<i64>().ok()? as u64,
            u64::from_str_radix(inode, 16).ok()?,
            u32::from_str_radix(device, 16).ok()?,
        )),
        None => None,
    };
    let [fd, events, data] = head;
    Some(Watch {
        fd: fd.parse().ok()?,
        events: u32::from_str_radix(events, 16).ok()?,
        data: u64::from_str_radix(data, 16).ok()?,
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_the_bases_in_which_the_kernel_writes_them() {
        let info = Info("pos:\t12\nflags:\t02104002\nmnt_id:\t15\neventfd-count:              12c\n");
        assert_eq!((info.position(), info.flags(), info.count()), (Some(12), Some(0o2_104_002), Some(300)));
        assert_eq!(Info("pos:\t-1\n").position(), Some(u64::MAX));
        assert_eq!(Info("sigmask:\t0000002000014000\n").signals(), Some(0x20_0001_4000));
        assert_eq!(Info("flags:\t09\n").flags(), None);
        assert_eq!(Info("").position(), None);
    }

    #[test]
    fn a_timer_has_five_lines() {
        let text = "clockid: 1\nticks: 2\nsettime flags: 01\nit_value: (3, 4)\nit_interval: (5, 6)\n";
        let timer = Timer { clock: 1, ticks: 2, settime_flags: 1, value: (3, 4), interval: (5, 6) };
        assert_eq!(Info(text).timer(), Some(timer));
        assert_eq!(Info(&text.replace("(5, 6)", "(5)")).timer(), None);
    }

    #[test]
    fn watches_come_in_order_with_and_without_their_files() {
        let text = "tfd:        3 events:       19 data:  123456789abcdef  pos:0 ino:fec2 sdev:f\n\
                    tfd:       15 events: 80000019 data: ffffffffffffffff\n";
        let first = Watch { fd: 3, events: 0x19, data: 0x0123_4567_89ab_cdef, file: Some((0, 0xfec2, 0xf)) };
        let second = Watch { fd: 15, events: 0x8000_0019, data: u64::MAX, file: None };
        assert_eq!(Info(text).watches(), Some(vec![first, second]));
        assert_eq!(Info("tfd: 3\n").watches(), None);
        assert_eq!(Info("pos:\t0\n").watches(), Some(vec![]));
    }
}
