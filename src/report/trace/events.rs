//! The time line in the trace-event format, which Perfetto and Chrome open.
//!
//! One process a pool, one thread a lane; the critical path has a process of its own above them. Arrows go
//! along what stands on what.

use serde_json::{Value, json};

use super::{Slice, critical_path, lanes};

/// Processes of the trace, in the order shown; the first is the critical path.
const POOLS: [&str; 4] = ["cpu", "gpu", "machine", "network"];

/// The whole file's content. `about` is told in it as it is.
pub fn events(slices: &[Slice], wall_us: u64, about: &Value) -> Value {
    let path = critical_path(slices);
    let on_path: std::collections::BTreeSet<usize> = path.iter().copied().collect();
    let lanes = lanes(slices);
    let mut all = names(slices, &lanes);
    let process = |slice: &Slice| 1 + POOLS.iter().position(|p| *p == slice.pool).unwrap_or(0);
    for (at, slice) in slices.iter().enumerate() {
        let critical = on_path.contains(&at);
        let mut event = complete(slice, process(slice), lanes[at]);
        event["cat"] = if critical { json!("action,critical") } else { json!("action") };
        if slice.outcome == "failed" {
            event["cname"] = json!("terrible");
        } else if critical {
            event["cname"] = json!("bad");
        }
        all.push(event);
    }
    for at in &path {
        let mut event = complete(&slices[*at], 0, 0);
        event["cat"] = json!("critical");
        event["cname"] = json!("bad");
        all.push(event);
    }
    let mut arrow = 0;
    for (at, slice) in slices.iter().enumerate() {
        for under in &slice.after {
            arrow += 1;
            let from = &slices[*under];
            let both = on_path.contains(&at) && on_path.contains(under);
            let cat = if both { "dependency,critical" } else { "dependency" };
            // An arrow holds to the slice that encloses its time.
            let leaves = from.end_us.saturating_sub(1).max(from.start_us);
            all.push(json!({"ph": "s", "id": arrow, "name": "stands on", "cat": cat, "ts": leaves,
                            "pid": process(from), "tid": lanes[*under]}));
            all.push(json!({"ph": "f", "bp": "e", "id": arrow, "name": "stands on", "cat": cat, "ts": slice.start_us,
                            "pid": process(slice), "tid": lanes[at]}));
        }
    }
    all.extend(running(slices, wall_us));
    json!({"traceEvents": all, "displayTimeUnit": "ms", "otherData": about})
}

fn complete(slice: &Slice, process: usize, lane: usize) -> Value {
    json!({
        "ph": "X", "name": slice.label, "ts": slice.start_us, "dur": slice.took_us().max(1), "pid": process, "tid": lane,
        "args": {
            "kind": slice.kind, "key": slice.key, "outcome": slice.outcome, "wall-ms": slice.took_us() as f64 / 1e3,
            "waited-ms": slice.start_us.saturating_sub(slice.ready_us) as f64 / 1e3, "cpu-ms": slice.cpu_ms,
            "peak-bytes": slice.peak_bytes, "threads": slice.threads, "reasons": slice.reasons,
        },
    })
}

/// Names of processes and threads, and their order.
fn names(slices: &[Slice], lanes: &[usize]) -> Vec<Value> {
    let meta = |what: &str, pid: usize, tid: usize, args: Value| json!({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args});
    let mut all = Vec::new();
    let mut process = |pid: usize, name: &str| {
        all.push(meta("process_name", pid, 0, json!({"name": name})));
        all.push(meta("process_sort_index", pid, 0, json!({"sort_index": pid})));
    };
    process(0, "critical path");
    for (i, pool) in POOLS.iter().enumerate() {
        if slices.iter().any(|s| s.pool == *pool) {
            process(i + 1, &format!("pool {pool}"));
        }
    }
    all.push(meta("thread_name", 0, 0, json!({"name": "critical path"})));
    for (i, pool) in POOLS.iter().enumerate() {
        let most = slices.iter().zip(lanes).filter(|(s, _)| s.pool == *pool).map(|(_, lane)| lane + 1).max();
        for lane in 0..most.unwrap_or(0) {
            all.push(meta("thread_name", i + 1, lane, json!({"name": format!("slot {}", lane + 1)})));
        }
    }
    all
}

/// How many actions ran, as a curve.
fn running(slices: &[Slice], wall_us: u64) -> Vec<Value> {
    let mut steps: Vec<(u64, i64)> = slices.iter().flat_map(|s| [(s.start_us, 1), (s.end_us, -1)]).collect();
    steps.push((wall_us, 0));
    steps.sort_unstable();
    let mut now = 0;
    let counter = |(at, change): (u64, i64)| {
        now += change;
        json!({"ph": "C", "name": "running", "pid": 0, "ts": at, "args": {"actions": now}})
    };
    steps.into_iter().map(counter).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::slice;
    use super::*;

    #[test]
    fn slices_arrows_and_the_path() {
        let slices = [slice("a", 0, 100, &[]), slice("b", 10, 20, &[]), slice("c", 100, 300, &[0, 1])];
        let trace = events(&slices, 310_000, &json!({"build": 1}));
        let all = trace["traceEvents"].as_array().unwrap();
        let of = |ph: &str| all.iter().filter(|e| e["ph"] == ph).collect::<Vec<_>>();
        assert_eq!(of("X").len(), 5, "three slices and the two of the path");
        assert_eq!(of("X").iter().filter(|e| e["pid"] == 0).map(|e| &e["name"]).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!((of("s").len(), of("f").len()), (2, 2));
        for (start, finish) in of("s").iter().zip(of("f")) {
            assert_eq!(start["id"], finish["id"]);
            assert!(start["ts"].as_u64() <= finish["ts"].as_u64());
        }
        let critical: Vec<&Value> = of("X").into_iter().filter(|e| e["cat"] == "action,critical").collect();
        assert_eq!(critical.len(), 2);
        assert_eq!(of("C").last().unwrap()["args"]["actions"], 0);
    }
}
