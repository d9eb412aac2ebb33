//! Jobs through a real NATS and real worker processes: each capture is analysed, and each record counts once, whatever happens.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use tokio::process::Child;
use uuid::Uuid;
use weir_proto::capture::State;
use weir_proto::{AnalyseCapture, CarvePackets};

mod support;

use support::{PATIENCE, Setup, Tables, capture};

const ROOMY: u64 = 256 << 20;
/// Room for about two batches.
const TIGHT: u64 = 200_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_becomes_records_a_report_and_a_final_state() -> Result<()> {
    let Some(setup) = Setup::start(ROOMY).await? else { return Ok(()) };
    let _worker = setup.worker(&[])?;
    let id = setup.upload("three.pcap", &capture(3)).await?;
    let end = setup.wait_for_end(id).await?;
    assert_eq!((end.state(), end.error.as_str()), (State::Done, ""));
    assert_eq!((end.packets, end.bytes, end.attempts), (6, 6 * 32, 1));
    assert_eq!((end.first_packet, end.last_packet), (1_700_000_000_000_000, 1_700_000_001_000_002));
    assert_eq!(setup.report(id).await?["flows"]["flows"], 3);
    setup.wait_for_empty_queue().await?;

    let mut tables = Tables::default();
    tables.take_all(&setup.bus).await?;
    assert_eq!(tables.flows(id), (3, 6));
    let statements = tables.statements(id);
    assert_eq!(statements.len(), 1);
    assert_eq!((statements[0].state(), statements[0].packets), (State::Done, 6));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_captures_end_with_their_reason_and_the_next_one_is_analysed() -> Result<()> {
    let Some(setup) = Setup::start(ROOMY).await? else { return Ok(()) };
    let _worker = setup.worker(&["--max-decompressed-bytes", "1000000"])?;
    let whole = capture(3);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&whole[..24])?;
    bomb.write_all(&vec![0; 4 << 20])?;
    let expected = [
        (Vec::new(), State::Failed, "the file is empty", 0),
        (b"GET / HTTP/1.1".to_vec(), State::Failed, "the file is neither pcap nor pcapng", 0),
        (bomb.finish()?, State::Failed, "the file decompresses to more than 1000000 bytes", 0),
        (whole[..whole.len() - 5].to_vec(), State::Done, "damaged after packet 5, at byte 264 of", 5),
        (whole, State::Done, "", 6),
    ];
    let mut ids = Vec::new();
    for (bytes, ..) in &expected {
        ids.push(setup.upload("capture", bytes).await?);
    }
    for (id, (_, state, error, packets)) in ids.iter().zip(&expected) {
        let end = setup.wait_for_end(*id).await?;
        assert_eq!(end.state(), *state, "{}", end.error);
        assert!(end.error.starts_with(error), "{}", end.error);
        if end.state() == State::Done {
            assert_eq!(end.packets, *packets);
        }
    }
    setup.wait_for_empty_queue().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_of_a_worker_that_is_killed_goes_to_another_and_counts_once() -> Result<()> {
    // The stream is full after two batches, so the first worker is in the middle of its job for as long as nobody takes them.
    let Some(setup) = Setup::start(TIGHT).await? else { return Ok(()) };
    let mut first = setup.worker(&[])?;
    let id = setup.upload("many.pcap", &capture(20_000)).await?;
    setup.wait(id, |capture| capture.state() == State::Running && capture.packets > 0).await?;
    first.kill().await?;

    let _second = setup.worker(&[])?;
    setup.wait(id, |capture| capture.attempts == 2).await?;
    let mut tables = Tables::default();
    let mut records = setup.bus.records().await?;
    let ended = tokio::time::timeout(PATIENCE, async {
        while tables.statements(id).is_empty() {
            tables.take_one(&mut records).await?;
        }
        anyhow::Ok(())
    });
    ended.await.context("the records do not come to an end")??;
    let end = setup.wait_for_end(id).await?;
    assert_eq!((end.state(), end.packets), (State::Done, 40_000));
    assert_eq!(tables.flows(id), (20_000, 40_000));
    let sequences = tables.sequences(&end.analysis_id);
    assert!(sequences.len() >= 10, "{sequences:?}");
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    setup.wait_for_empty_queue().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_is_deleted_meanwhile_ends_its_job() -> Result<()> {
    let Some(setup) = Setup::start(TIGHT).await? else { return Ok(()) };
    let _worker = setup.worker(&[])?;
    let id = setup.upload("many.pcap", &capture(20_000)).await?;
    setup.wait(id, |capture| capture.state() == State::Running && capture.packets > 0).await?;
    setup.change(id, |capture| capture.deleted = true).await?;
    setup.wait_for_empty_queue().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_job_is_not_delivered_for_ever() -> Result<()> {
    let Some(setup) = Setup::start(ROOMY).await? else { return Ok(()) };
    setup.bus.send_job(&AnalyseCapture::default(), "nothing").await?;
    let _worker = setup.worker(&[])?;
    setup.wait_for_empty_queue().await?;
    let mut tables = Tables::default();
    tables.take_all(&setup.bus).await?;
    assert_eq!(tables.dead_letters()[0].reason, "not a job: a job without capture or analysis");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_the_queue_and_stop_when_they_are_told() -> Result<()> {
    let Some(setup) = Setup::start(ROOMY).await? else { return Ok(()) };
    let mut workers = [setup.worker(&[])?, setup.worker(&[])?];
    let mut ids = Vec::new();
    for flows in 1..=8 {
        ids.push((flows, setup.upload("capture", &capture(flows)).await?));
    }
    for (_, id) in &ids {
        assert_eq!(setup.wait_for_end(*id).await?.state(), State::Done);
    }
    let mut tables = Tables::default();
    tables.take_all(&setup.bus).await?;
    for (flows, id) in &ids {
        assert_eq!(tables.flows(*id), (*flows as usize, u64::from(*flows) * 2));
    }
    for worker in &mut workers {
        stop(worker).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_gives_its_job_back() -> Result<()> {
    let Some(setup) = Setup::start(TIGHT).await? else { return Ok(()) };
    let mut first = setup.worker(&["--ack-wait", "3600"])?;
    let id = setup.upload("many.pcap", &capture(20_000)).await?;
    setup.wait(id, |capture| capture.state() == State::Running && capture.packets > 0).await?;
    stop(&mut first).await?;
    let _second = setup.worker(&["--ack-wait", "3600"])?;
    setup.wait(id, |capture| capture.state() == State::Running && capture.attempts == 2).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_ends_its_worker_each_time_fails_and_is_a_dead_letter() -> Result<()> {
    let Some(setup) = Setup::start(TIGHT).await? else { return Ok(()) };
    let id = setup.upload("poison.pcap", &capture(20_000)).await?;
    for attempt in 1..=2 {
        let mut worker = setup.worker(&["--max-attempts", "2"])?;
        setup.wait(id, |capture| capture.attempts == attempt && capture.packets > 0).await?;
        worker.kill().await?;
    }
    let _last = setup.worker(&["--max-attempts", "2"])?;
    let mut tables = Tables::default();
    let end = setup.end_with(id, &mut tables).await?;
    assert_eq!(end.state(), State::Failed);
    let reason = "given up after 2 attempts: each time the worker died while it analysed the capture";
    assert_eq!(end.error, reason);
    setup.wait_for_empty_queue().await?;
    tables.take_all(&setup.bus).await?;
    assert!(tables.is_purged(id, &end.analysis_id), "nothing of it stays in the tables");
    let letters = tables.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].stream.as_str(), letters[0].reason.as_str()), ("WEIR_JOBS", reason));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_analysis_ends_and_leaves_no_rows() -> Result<()> {
    let Some(setup) = Setup::start(TIGHT).await? else { return Ok(()) };
    let _worker = setup.worker(&[])?;
    let id = setup.upload("many.pcap", &capture(20_000)).await?;
    let running = setup.wait(id, |capture| capture.state() == State::Running && capture.packets > 0).await?;
    assert_eq!(running.phase, "reading");
    setup.change(id, |capture| capture.cancel = true).await?;
    let mut tables = Tables::default();
    let end = setup.end_with(id, &mut tables).await?;
    assert_eq!((end.state(), end.error.as_str(), end.cancel), (State::Failed, "cancelled", false));
    setup.wait_for_empty_queue().await?;
    tables.take_all(&setup.bus).await?;
    assert!(tables.is_purged(id, &end.analysis_id));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_is_cancelled_while_it_waits_stays_so_whoever_takes_it() -> Result<()> {
    let Some(setup) = Setup::start(ROOMY).await? else { return Ok(()) };
    let _worker = setup.worker(&[])?;
    let mut captures = Vec::new();
    for _ in 0..24 {
        let id = setup.upload("three.pcap", &capture(3)).await?;
        // Either this one or the worker is first.
        captures.push((id, setup.cancel_waiting(id).await?));
    }
    setup.wait_for_empty_queue().await?;
    let mut tables = Tables::default();
    tables.take_all(&setup.bus).await?;
    for (id, cancelled) in captures {
        let end = setup.wait_for_end(id).await?;
        let (state, packets) = if cancelled { (State::Failed, 0) } else { (State::Done, 6) };
        assert_eq!((end.state(), end.packets, tables.flows(id).1), (state, packets, packets));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_analysis_that_replaces_another_removes_its_rows_first() -> Result<()> {
    let Some(setup) = Setup::start(ROOMY).await? else { return Ok(()) };
    let _worker = setup.worker(&[])?;
    let id = setup.upload("three.pcap", &capture(3)).await?;
    let first = setup.wait_for_end(id).await?;
    let second = setup.analyse_again(id).await?;
    let end = setup.wait(id, |capture| capture.state() == State::Done && capture.analysis_id == second).await?;
    assert_eq!((end.packets, end.previous_analysis_id), (6, first.analysis_id.clone()));
    setup.wait_for_empty_queue().await?;
    let mut tables = Tables::default();
    tables.take_all(&setup.bus).await?;
    assert!(tables.is_purged(id, &first.analysis_id));
    assert!(!tables.is_purged(id, &second));
    assert_eq!((tables.sequences(&first.analysis_id), tables.sequences(&second)), (vec![1, u64::MAX], vec![1]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_carved_by_whoever_is_asked() -> Result<()> {
    let Some(setup) = Setup::start(ROOMY).await? else { return Ok(()) };
    let _worker = setup.worker(&[])?;
    let id = setup.upload("many.pcap", &capture(20_000)).await?;
    setup.wait_for_end(id).await?;
    let wanted = CarvePackets { capture_id: id.as_bytes().to_vec(), all: true, ..CarvePackets::default() };
    let all = setup.carve(&wanted).await?;
    assert_eq!(all[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    assert!(all.len() > 40_000 * 64, "{}", all.len());
    let gone = CarvePackets { capture_id: Uuid::new_v4().as_bytes().to_vec(), ..CarvePackets::default() };
    assert!(setup.carve(&gone).await.unwrap_err().to_string().starts_with("cannot open the capture"));
    Ok(())
}

/// SIGTERM, and an orderly end.
async fn stop(worker: &mut Child) -> Result<()> {
    let pid = worker.id().context("it runs")?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGTERM)?;
    let status = tokio::time::timeout(PATIENCE, worker.wait()).await??;
    anyhow::ensure!(status.success(), "{status}");
    Ok(())
}
