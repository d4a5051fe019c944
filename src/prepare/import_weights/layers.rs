//! Which names of a checkpoint are the encoder's layers: those with one prefix.
//!
//! An encoder counts as found only if all its layers exist in their shapes, without additional layers of a larger
//! network: a part of a network, or a network of another depth, would load without an error and be useless.
//!
//! Depends on names and shapes, not on numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use anyhow::{anyhow, bail, ensure};
use pipeline_stages::kinds::architecture::EncoderArchitecture;
use pipeline_stages::state_dict::{self, ElementType, TensorSpec, residual};
use pipeline_stages::text::{in_short, shortened};

use crate::checkpoint::{Entry, Leaf, Tensor};

/// The keys of a state dict in whole checkpoints.
const CONTAINERS: &[&str] = &["state_dict", "model_state_dict", "model", "net", "network", "state"];
/// Common names of the attribute of an encoder in modules. Prefixes of these and of [`CONTAINERS`] are
/// preferred if a file has several encoders: `encoder_q` of MoCo, not `encoder_k`.
const WRAPPERS: &[&str] =
    &["module", "convnet", "encode_layer", "encoder", "encoder_q", "backbone", "resnet"];
/// The most prefixes that are tried: no known checkpoint has this many encoders.
const MOST_CANDIDATES: usize = 100;
/// The most names that a message names.
const NAMED: usize = 4;

/// An encoder in a checkpoint.
pub(super) struct Selection<'e> {
    /// The prefix of the encoder's names: empty, or with a dot at its end.
    pub prefix: String,
    /// The number of channels of its images.
    pub channels: usize,
    /// Every layer, in the order of the state dict.
    pub layers: Vec<Layer<'e>>,
    /// The prefixes of other complete encoders of this architecture.
    pub others: Vec<String>,
}

/// A layer, and its tensor in the file.
pub(super) struct Layer<'e> {
    pub spec: TensorSpec,
    /// `None` for a counter that is missing in the file.
    pub found: Option<Found<'e>>,
}

/// A tensor of a checkpoint, under its name there.
#[derive(Clone, Copy)]
pub(super) struct Found<'e> {
    pub name: &'e str,
    pub tensor: &'e Tensor<'e>,
}

impl<'e> Selection<'e> {
    /// Finds the encoder.
    ///
    /// # Errors
    /// When no prefix has all of it, or several have it and none is preferred: with what is missing, of
    /// another shape or too much, and what would fit.
    pub(super) fn find(
        entries: &'e [Entry<'e>],
        architecture: EncoderArchitecture,
        prefix: Option<&str>,
    ) -> anyhow::Result<Self> {
        let names = Names::of(entries);
        let candidates = names.candidates(architecture, prefix)?;
        ensure!(
            candidates.len() <= MOST_CANDIDATES,
            "{} tensors in the file are called '{}' after some prefix: choose one with prefix = \"...\"",
            candidates.len(),
            state_dict::stem(architecture)
        );
        let fitting: Vec<&String> =
            candidates.iter().filter(|prefix| names.fits(architecture, prefix)).collect();
        let known: Vec<&String> =
            fitting.iter().copied().filter(|prefix| is_known(prefix)).collect();
        let chosen = match (fitting.as_slice(), known.as_slice()) {
            ([only], _) | (_, [only]) => *only,
            ([], _) => return Err(names.why_not(architecture, &candidates, prefix)),
            (several, _) => bail!(
                "the file has several encoders: choose one with prefix = \"...\": {}",
                quoted(several.iter().map(|prefix| prefix.trim_end_matches('.')))
            ),
        };
        let others = fitting.iter().filter(|prefix| **prefix != chosen);
        Ok(Self {
            channels: names.channels(architecture, chosen),
            layers: names.layers(architecture, chosen),
            others: others.map(|prefix| (*prefix).clone()).collect(),
            prefix: chosen.clone(),
        })
    }
}

/// The tensors of a checkpoint by name.
struct Names<'e>(BTreeMap<&'e str, &'e Leaf<'e>>);

impl<'e> Names<'e> {
    fn of(entries: &'e [Entry<'e>]) -> Self {
        let tensors = entries.iter().filter(|entry| !matches!(entry.leaf, Leaf::Opaque(_)));
        Self(tensors.map(|entry| (entry.name.as_str(), &entry.leaf)).collect())
    }

    /// Every prefix that an encoder of this architecture could have; only the given one, if any.
    fn candidates(
        &self,
        architecture: EncoderArchitecture,
        given: Option<&str>,
    ) -> anyhow::Result<BTreeSet<String>> {
        let stem = state_dict::stem(architecture);
        let whose = match architecture {
            EncoderArchitecture::Residual(_) => "torchvision's",
            EncoderArchitecture::Transformer(_) => "timm's",
        };
        ensure!(
            !self.0.is_empty(),
            "the file has no encoder with {whose} names: it has no tensors"
        );
        let all = self.prefixes(architecture);
        ensure!(
            !all.is_empty(),
            "the file has no encoder with {whose} names: no tensor in it is called '{stem}', after any prefix; it has {}{}",
            quoted(self.0.keys().copied()),
            self.what_fits(given)
        );
        let Some(given) = given else { return Ok(all) };
        let chosen: BTreeSet<String> =
            all.iter().filter(|prefix| is_given(prefix, given)).cloned().collect();
        ensure!(
            !chosen.is_empty(),
            "the file has no '{}.{stem}'; encoders have the prefix {}",
            given.trim_end_matches('.'),
            quoted(all.iter().map(|prefix| prefix.trim_end_matches('.')))
        );
        Ok(chosen)
    }

    /// What is before the names of the layer that shows an encoder of this architecture.
    fn prefixes(&self, architecture: EncoderArchitecture) -> BTreeSet<String> {
        let stem = state_dict::stem(architecture);
        let prefixes = self.0.keys().filter_map(|name| name.strip_suffix(stem));
        prefixes
            .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
            .filter(|prefix| !residual::is_in_a_block(prefix))
            .map(str::to_owned)
            .collect()
    }

    /// The names with a prefix, without it.
    fn after(&self, prefix: &str) -> impl Iterator<Item = &'e str> {
        let from = self.0.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map_while(move |(name, _)| name.strip_prefix(prefix))
    }

    fn tensor(&self, prefix: &str, name: &str) -> Option<Found<'e>> {
        let (name, leaf) = self.0.get_key_value(format!("{prefix}{name}").as_str())?;
        match leaf {
            Leaf::Tensor(tensor) => Some(Found { name, tensor }),
            Leaf::Damaged(_) | Leaf::Opaque(_) => None,
        }
    }

    /// The number of channels of the images of an encoder: one or three, from its first layer.
    fn channels(&self, architecture: EncoderArchitecture, prefix: &str) -> usize {
        let stem = self.tensor(prefix, state_dict::stem(architecture));
        let channels = stem.and_then(|found| found.tensor.shape.get(1).copied());
        channels.filter(|channels| *channels == 1).unwrap_or(3)
    }

    fn layers(&self, architecture: EncoderArchitecture, prefix: &str) -> Vec<Layer<'e>> {
        let specs = state_dict::encoder(architecture, self.channels(architecture, prefix));
        specs
            .into_iter()
            .map(|spec| Layer { found: self.tensor(prefix, &spec.name), spec })
            .collect()
    }

    fn fits(&self, architecture: EncoderArchitecture, prefix: &str) -> bool {
        let fit = Fit::of(self, architecture, prefix);
        fit.problems() == 0
    }

    /// Why no prefix fits, for the one with the fewest problems.
    fn why_not(
        &self,
        architecture: EncoderArchitecture,
        candidates: &BTreeSet<String>,
        given: Option<&str>,
    ) -> anyhow::Error {
        let fits = candidates.iter().map(|prefix| (prefix, Fit::of(self, architecture, prefix)));
        let Some((prefix, fit)) = fits.min_by_key(|(_, fit)| fit.problems()) else {
            return anyhow!("the file has no encoder");
        };
        let place = match prefix.trim_end_matches('.') {
            "" => "without a prefix".to_owned(),
            prefix => format!("under the prefix '{prefix}'"),
        };
        let (words, others) = (fit.words(), self.what_fits(given));
        anyhow!("the encoder {place} is not a {architecture}: {words}{others}")
    }

    /// The architectures that fit, as the end of a message; only under the given prefix, if any.
    fn what_fits(&self, given: Option<&str>) -> String {
        let is_wanted = |prefix: &String| given.is_none_or(|given| is_given(prefix, given));
        let fitting = EncoderArchitecture::all().filter(|architecture| {
            let prefixes = self.prefixes(*architecture);
            let mut wanted = prefixes.iter().filter(|prefix| is_wanted(prefix));
            prefixes.len() <= MOST_CANDIDATES
                && wanted.any(|prefix| self.fits(*architecture, prefix))
        });
        let fitting: Vec<String> =
            fitting.map(|architecture| format!("architecture = \"{architecture}\"")).collect();
        if fitting.is_empty() {
            return String::new();
        }
        format!("; {} would fit", fitting.join(" or "))
    }
}

/// What is wrong with the tensors of a prefix, for an architecture.
#[derive(Default)]
struct Fit {
    missing: Vec<String>,
    /// Of another shape or type, or damaged: in words.
    mismatched: Vec<String>,
    /// Layers that the architecture does not have.
    extra: Vec<String>,
}

impl Fit {
    fn of(names: &Names<'_>, architecture: EncoderArchitecture, prefix: &str) -> Self {
        let mut fit = Self::default();
        let specs = state_dict::encoder(architecture, names.channels(architecture, prefix));
        for spec in &specs {
            let full = format!("{prefix}{}", spec.name);
            match names.0.get(full.as_str()) {
                Some(Leaf::Tensor(tensor)) => fit.mismatched.extend(mismatch(&full, spec, tensor)),
                Some(Leaf::Damaged(why)) => fit.mismatched.push(format!("'{full}' is {why}")),
                Some(Leaf::Opaque(_)) | None if spec.element == ElementType::I64 => {}
                Some(Leaf::Opaque(_)) | None => fit.missing.push(full),
            }
        }
        let wanted: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let layers = names.after(prefix).filter(|layer| state_dict::has_layer(architecture, layer));
        let extra = layers.filter(|layer| !wanted.contains(layer));
        fit.extra = extra.map(|layer| format!("{prefix}{layer}")).collect();
        fit
    }

    fn problems(&self) -> usize {
        self.missing.len() + self.mismatched.len() + self.extra.len()
    }

    fn words(&self) -> String {
        let mut words = Vec::new();
        if !self.missing.is_empty() {
            words.push(format!("it has no {}", quoted(self.missing.iter().map(String::as_str))));
        }
        if let Some(first) = self.mismatched.first() {
            let more = self.mismatched.len() - 1;
            let more = if more > 0 { format!(" (and {more} more like it)") } else { String::new() };
            words.push(format!("{first}{more}"));
        }
        if !self.extra.is_empty() {
            let extra = quoted(self.extra.iter().map(String::as_str));
            words.push(format!("it also has {extra}"));
        }
        words.join("; ")
    }
}

/// What is wrong with the shape or the type of a tensor, in words.
fn mismatch(name: &str, spec: &TensorSpec, tensor: &Tensor<'_>) -> Option<String> {
    // Some old files have counters as vectors of length one.
    let same_shape =
        tensor.shape == spec.shape || spec.element == ElementType::I64 && tensor.shape == [1];
    if !same_shape {
        return Some(format!(
            "'{name}' has the shape {:?}, but must have {:?}",
            tensor.shape, spec.shape
        ));
    }
    let same_type = tensor.element.is_float() == (spec.element == ElementType::F32);
    (!same_type).then(|| format!("'{name}' has elements of the type {}", tensor.element.name()))
}

/// Whether a prefix is the one that the user gave, which may be its end.
fn is_given(prefix: &str, given: &str) -> bool {
    let (prefix, given) = (prefix.trim_end_matches('.'), given.trim_end_matches('.'));
    match prefix.strip_suffix(given) {
        _ if given.is_empty() => prefix.is_empty() || CONTAINERS.contains(&prefix),
        Some(before) => before.is_empty() || before.ends_with('.'),
        None => false,
    }
}

fn is_known(prefix: &str) -> bool {
    let known = |part: &str| CONTAINERS.contains(&part) || WRAPPERS.contains(&part);
    prefix.split_terminator('.').all(known)
}

/// The first few of a list of names, quoted.
fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    in_short(names.map(|name| format!("'{}'", shortened(name))), NAMED)
}
