//! How long a step of Meta-Weight-Net takes: ResNet-18 with the CIFAR stem, 10 classes, images of 32x32.
//!
//!     cargo bench -p pipeline-learn --bench meta_weight_net_step -- [steps] [f32|bf16] [threads] [batch]
//!
//! Prints the seconds of every step but the first one, a line each. `benches/pytorch/meta_weight_net.py` takes the
//! same arguments, prints the same, and does the step as it is done with the `higher` package.

use std::time::Instant;

use anyhow::{Context as _, bail};
use pipeline_learn::methods::meta_weight_net::MetaWeightNet;
use pipeline_learn::training::batch::Batch;
use pipeline_learn::training::method::{Method, Setup};
use pipeline_learn::training::recipe::Recipe;
use pipeline_learn::training::training_loop::{RunLength, StepPosition};
use pipeline_stages::kinds::Train;
use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::kinds::precision::Precision;
use tch::{Device, Kind, Tensor};

const CLASSES: i64 = 10;

struct Arguments {
    steps: u64,
    precision: Precision,
    threads: i32,
    batch: i64,
}

impl Arguments {
    fn read() -> anyhow::Result<Self> {
        // Cargo adds `--bench`.
        let words: Vec<String> =
            std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
        let word = |place: usize, otherwise: &'static str| {
            words.get(place).map_or(otherwise, String::as_str)
        };
        Ok(Self {
            steps: word(0, "5").parse().context("steps is a number")?,
            precision: match word(1, "f32") {
                "f32" => Precision::F32,
                "bf16" => Precision::Bf16,
                other => bail!(
                    "the precision is f32 or bf16, not {other}: this runs on the CPU, which has no tf32"
                ),
            },
            threads: word(2, "2").parse().context("threads is a number")?,
            batch: word(3, "100").parse().context("batch is a number")?,
        })
    }
}

fn labelled(batch: i64) -> Batch {
    let labels = Tensor::randint(CLASSES, [batch], (Kind::Int64, Device::Cpu));
    Batch {
        images: Tensor::rand([batch, 3, 32, 32], (Kind::Float, Device::Cpu)),
        other_views: Vec::new(),
        mixing: None,
        samples: Tensor::arange(batch, (Kind::Int64, Device::Cpu)),
        clean_labels: labels.shallow_clone(),
        labels,
    }
}

fn main() -> anyhow::Result<()> {
    let Arguments { steps, precision, threads, batch } = Arguments::read()?;
    tch::set_num_threads(threads);
    let parameters: Train =
        serde_json::from_value(serde_json::json!({ "method": "meta-weight-net" }))?;
    let architecture = Architecture::Resnet18;
    let recipe = Recipe::of(&Train { architecture, precision, ..parameters });
    let setup = Setup::new(&recipe, 3, CLASSES as usize, 0, Device::Cpu);
    let mut setup = Setup { validation: &[0], noisy: true, ..setup };
    let mut method = MetaWeightNet::new(&mut setup)?;
    for step in 0..=steps {
        let (batch, meta) = (labelled(batch), labelled(batch));
        let length = RunLength { steps: steps + 1, steps_per_epoch: steps + 1 };
        let started = Instant::now();
        method.begin_step(0.01, StepPosition::usual(step, length))?;
        method.compute(&batch, &[meta])?;
        if step > 0 {
            println!("{:.4}", started.elapsed().as_secs_f64());
        }
    }
    Ok(())
}
