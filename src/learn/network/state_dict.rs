//! The networks have the tensors that the contract lists, and no others: what `import-weights` writes is
//! what training reads.

use pipeline_stages::kinds::architecture::Architecture;
use pipeline_stages::state_dict::{self, ElementType, TensorSpec};
use tch::{Device, Kind};

use super::{Classifier, feature_count};

#[test]
fn every_network_has_the_tensors_of_its_state_dict() {
    for &architecture in Architecture::ALL {
        let network = Classifier::new(architecture, 3, 2, 0, Device::Cpu).unwrap();
        let encoder = network.state().tensors().iter();
        let found: Vec<TensorSpec> = encoder
            .filter(|named| !Classifier::in_head(&named.name))
            .map(|named| TensorSpec {
                name: named.name.clone(),
                shape: named.tensor.size().into_iter().map(|size| size as usize).collect(),
                element: match named.tensor.kind() {
                    Kind::Float => ElementType::F32,
                    Kind::Int64 => ElementType::I64,
                    other => panic!("{} is {other:?}", named.name),
                },
            })
            .collect();
        assert_eq!(found, state_dict::encoder(architecture, 3), "{architecture}");
        let features = state_dict::feature_count(architecture);
        assert_eq!(usize::try_from(feature_count(architecture)).unwrap(), features);
    }
}
