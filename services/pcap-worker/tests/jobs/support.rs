//! A real NATS, real worker processes, and captures made for the occasion.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use tokio::process::{Child, Command};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_bus::{Bucket, Bus, RecordsReader, names};
use weir_engines::testing::Nats;
use weir_proto::capture::State;
use weir_proto::{AnalyseCapture, Batch, Capture, CarvePackets, DeadLetter};

/// How long anything may take on a machine that builds at the same time.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Setup {
    pub(crate) nats: Nats,
    pub(crate) bus: Bus,
    pub(crate) captures: Bucket<Capture>,
    data: tempfile::TempDir,
}

impl Setup {
    /// None where there is no NATS on this machine. The stream of records takes `records_max_bytes`.
    pub(crate) async fn start(records_max_bytes: u64) -> Result<Option<Self>> {
        let Some(nats) = Nats::start_or_skip().await else { return Ok(None) };
        let options = weir_bus::Options {
            nats_url: nats.url(),
            nats_credentials: None,
            records_max_bytes,
            uploads_max_bytes: 1 << 30,
        };
        let bus = Bus::connect(&options, "test").await?;
        timeout(PATIENCE, bus.ready(&CancellationToken::new(), |_| {})).await??;
        let captures = bus.bucket(names::CAPTURES).await?;
        Ok(Some(Self { nats, bus, captures, data: tempfile::tempdir()? }))
    }

    pub(crate) fn worker(&self, options: &[&str]) -> Result<Child> {
        Command::new(env!("CARGO_BIN_EXE_weir-pcap-worker"))
            .env("WEIR_PCAP_WORKER_ACK_WAIT", "2")
            .args(options)
            .env("WEIR_NATS_URL", self.nats.url())
            .env("WEIR_DATA_DIR", self.data.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a worker")
    }

    /// What the API does with an upload.
    pub(crate) async fn upload(&self, name: &str, bytes: &[u8]) -> Result<Uuid> {
        let (capture_id, analysis_id) = (Uuid::new_v4(), Uuid::new_v4());
        let mut input = bytes;
        self.bus.objects(names::UPLOADS).await?.put(&capture_id.to_string(), &mut input).await?;
        let capture = Capture {
            capture_id: capture_id.as_bytes().to_vec(),
            analysis_id: analysis_id.as_bytes().to_vec(),
            name: name.to_owned(),
            size_bytes: bytes.len() as u64,
            state: State::Queued.into(),
            ..Capture::default()
        };
        self.captures.create(&key(capture_id), &capture).await?;
        let job = AnalyseCapture {
            capture_id: capture.capture_id,
            analysis_id: capture.analysis_id,
            name: capture.name,
            size_bytes: capture.size_bytes,
        };
        self.bus.send_job(&job, &analysis_id.to_string()).await?;
        Ok(capture_id)
    }

    /// Changes the state of a capture, whoever else does.
    pub(crate) async fn change(&self, capture_id: Uuid, change: impl Fn(&mut Capture)) -> Result<Capture> {
        loop {
            let mut entry = self.captures.get(&key(capture_id)).await?.context("the capture is there")?;
            change(&mut entry.value);
            match self.captures.update(&key(capture_id), &entry.value, entry.revision).await {
                Ok(_) => return Ok(entry.value),
                Err(weir_bus::Error::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What the API does to end a capture that no worker has taken; whether it was in time.
    pub(crate) async fn cancel_waiting(&self, capture_id: Uuid) -> Result<bool> {
        let in_time = std::cell::Cell::new(false);
        let cancelled = self.change(capture_id, |capture| {
            in_time.set(capture.state() == State::Queued);
            if in_time.get() {
                capture.set_state(State::Failed);
                "cancelled".clone_into(&mut capture.error);
            }
        });
        cancelled.await?;
        Ok(in_time.get())
    }

    /// What the API does to have a capture analysed again; the new analysis.
    pub(crate) async fn analyse_again(&self, capture_id: Uuid) -> Result<Vec<u8>> {
        let analysis_id = Uuid::new_v4();
        let capture = self.change(capture_id, |capture| {
            capture.previous_analysis_id = capture.analysis_id.clone();
            capture.analysis_id = analysis_id.as_bytes().to_vec();
            capture.set_state(State::Queued);
        });
        let capture = capture.await?;
        let job = AnalyseCapture {
            capture_id: capture.capture_id,
            analysis_id: capture.analysis_id.clone(),
            name: capture.name,
            size_bytes: capture.size_bytes,
        };
        self.bus.send_job(&job, &analysis_id.to_string()).await?;
        Ok(capture.analysis_id)
    }

    /// Waits for the end of a capture, while its records are taken so that there is room for others.
    pub(crate) async fn end_with(&self, capture_id: Uuid, tables: &mut Tables) -> Result<Capture> {
        let mut records = self.bus.records().await?;
        let taking = async {
            loop {
                tables.take_one(&mut records).await?;
            }
        };
        tokio::select! {
            end = self.wait_for_end(capture_id) => end,
            failed = taking => failed,
        }
    }

    /// What a worker carves.
    pub(crate) async fn carve(&self, wanted: &CarvePackets) -> Result<Vec<u8>> {
        use prost::Message as _;
        let mut answer = self.bus.ask(names::CARVE, wanted.encode_to_vec().into()).await?;
        let mut all = Vec::new();
        while let Some(piece) = timeout(PATIENCE, answer.next()).await?? {
            all.extend(piece);
        }
        Ok(all)
    }

    /// The capture as soon as its state is as wanted.
    pub(crate) async fn wait(&self, capture_id: Uuid, wanted: impl Fn(&Capture) -> bool) -> Result<Capture> {
        let mut changes = self.captures.watch(&key(capture_id)).await?;
        let mut last = None;
        let found = timeout(PATIENCE, async {
            while let Some(change) = changes.next().await {
                let capture = change?.value.context("the capture is gone")?;
                if wanted(&capture) {
                    return Ok(capture);
                }
                last = Some(capture);
            }
            bail!("the watch ended")
        });
        let found = found.await;
        found.with_context(|| format!("the last state is {last:?}"))?
    }

    pub(crate) async fn wait_for_end(&self, capture_id: Uuid) -> Result<Capture> {
        self.wait(capture_id, |capture| matches!(capture.state(), State::Done | State::Failed)).await
    }

    pub(crate) async fn report(&self, capture_id: Uuid) -> Result<serde_json::Value> {
        use tokio::io::AsyncReadExt as _;
        let mut text = String::new();
        let store = self.bus.objects(names::ARTIFACTS).await?;
        store.get(&format!("{capture_id}/report.json")).await?.read_to_string(&mut text).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until the queue of jobs has forgotten all of them.
    pub(crate) async fn wait_for_empty_queue(&self) -> Result<()> {
        let url = format!("{}/jsz?streams=true", self.nats.monitor_url());
        let mut every = interval(Duration::from_millis(50));
        let empty = async {
            loop {
                every.tick().await;
                let answer: serde_json::Value = reqwest::get(&url).await?.json().await?;
                let streams = answer["account_details"][0]["stream_detail"].as_array().cloned().unwrap_or_default();
                let jobs = streams.iter().find(|stream| stream["name"] == names::JOBS);
                if jobs.is_some_and(|stream| stream["state"]["messages"] == 0) {
                    return Ok(());
                }
            }
        };
        timeout(PATIENCE, empty).await.context("there are still jobs")?
    }
}

pub(crate) fn key(capture_id: Uuid) -> String {
    format!("id.{capture_id}")
}

/// What an ingester keeps: each batch once, and an error where one name has two contents.
#[derive(Default)]
pub(crate) struct Tables {
    batches: BTreeMap<(Vec<u8>, u64), Batch>,
}

impl Tables {
    /// Takes one batch out of the stream, if there is one within a moment.
    pub(crate) async fn take_one(&mut self, records: &mut RecordsReader) -> Result<bool> {
        let Ok(message) = timeout(Duration::from_millis(500), records.next()).await else { return Ok(false) };
        let message = message?;
        let batch = message.batch()?;
        let name = (batch.producer.clone(), batch.sequence);
        if let Some(known) = self.batches.get(&name) {
            anyhow::ensure!(*known == batch, "batch {} has two contents", batch.sequence);
        }
        self.batches.insert(name, batch);
        message.ack_confirmed().await?;
        Ok(true)
    }

    /// Takes what is in the stream.
    pub(crate) async fn take_all(&mut self, bus: &Bus) -> Result<()> {
        let mut records = bus.records().await?;
        while self.take_one(&mut records).await? {}
        Ok(())
    }

    fn of(&self, capture_id: Uuid) -> impl Iterator<Item = &Batch> {
        self.batches.values().filter(move |batch| batch.capture_id == capture_id.as_bytes())
    }

    /// Flows and packets in them.
    pub(crate) fn flows(&self, capture_id: Uuid) -> (usize, u64) {
        let flows = self.of(capture_id).flat_map(|batch| &batch.flows);
        flows.fold((0, 0), |(count, packets), flow| (count + 1, packets + flow.tx_packets + flow.rx_packets))
    }

    pub(crate) fn statements(&self, capture_id: Uuid) -> Vec<&Capture> {
        self.of(capture_id).flat_map(|batch| &batch.captures).filter(|capture| !capture.purge).collect()
    }

    /// Whether the last word about an analysis is that its rows go.
    pub(crate) fn is_purged(&self, capture_id: Uuid, analysis_id: &[u8]) -> bool {
        let last = self.batches.get(&(analysis_id.to_vec(), u64::MAX));
        last.is_some_and(|batch| batch.capture_id == capture_id.as_bytes() && batch.captures[0].purge)
    }

    pub(crate) fn dead_letters(&self) -> Vec<&DeadLetter> {
        self.batches.values().flat_map(|batch| &batch.dead_letters).collect()
    }

    /// Numbers of the batches of the analysis.
    pub(crate) fn sequences(&self, analysis_id: &[u8]) -> Vec<u64> {
        self.batches.keys().filter(|name| name.0 == analysis_id).map(|name| name.1).collect()
    }
}

/// A pcap file with raw IPv4: two UDP packets for each of so many flows.
pub(crate) fn capture(flows: u32) -> Vec<u8> {
    let mut file = Vec::new();
    for field in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101] {
        file.extend(field.to_le_bytes());
    }
    for flow in 0..flows {
        for second in 0..2u32 {
            let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
            packet.extend((0x0a00_0000 + flow / 1000).to_be_bytes());
            packet.extend([192, 0, 2, 1]);
            packet.extend((1000 + (flow % 1000) as u16).to_be_bytes());
            packet.extend([0x23, 0x28, 0, 12, 0, 0, 1, 2, 3, 4]);
            let time = 1_700_000_000 + second;
            for field in [time, flow, packet.len() as u32, packet.len() as u32] {
                file.extend(field.to_le_bytes());
            }
            file.extend(packet);
        }
    }
    file
}
