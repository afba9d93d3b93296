"""FineTuneSchedule: makes runs at fixed times, when the posts have changed, and when Git says so."""
