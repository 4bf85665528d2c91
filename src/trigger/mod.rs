//! Why the agent wakes: a signal, a caller, or the next deadline of a [`Schedule`].

mod schedule;

pub(crate) use schedule::Timetable;
