//! The classes of CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009).
//!
//! A table. Does not depend on files.

/// CIFAR-10's classes, in the order of their labels.
pub const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// CIFAR-100's superclasses in the order of their (coarse) labels, each with its classes in alphabetical order.
pub const CIFAR100_SUPERCLASSES: [(&str, [&str; 5]); 20] = [
    ("aquatic_mammals", ["beaver", "dolphin", "otter", "seal", "whale"]),
    ("fish", ["aquarium_fish", "flatfish", "ray", "shark", "trout"]),
    ("flowers", ["orchid", "poppy", "rose", "sunflower", "tulip"]),
    ("food_containers", ["bottle", "bowl", "can", "cup", "plate"]),
    ("fruit_and_vegetables", ["apple", "mushroom", "orange", "pear", "sweet_pepper"]),
    ("household_electrical_devices", ["clock", "keyboard", "lamp", "telephone", "television"]),
    ("household_furniture", ["bed", "chair", "couch", "table", "wardrobe"]),
    ("insects", ["bee", "beetle", "butterfly", "caterpillar", "cockroach"]),
    ("large_carnivores", ["bear", "leopard", "lion", "tiger", "wolf"]),
    ("large_man-made_outdoor_things", ["bridge", "castle", "house", "road", "skyscraper"]),
    ("large_natural_outdoor_scenes", ["cloud", "forest", "mountain", "plain", "sea"]),
    ("large_omnivores_and_herbivores", ["camel", "cattle", "chimpanzee", "elephant", "kangaroo"]),
    ("medium_mammals", ["fox", "porcupine", "possum", "raccoon", "skunk"]),
    ("non-insect_invertebrates", ["crab", "lobster", "snail", "spider", "worm"]),
    ("people", ["baby", "boy", "girl", "man", "woman"]),
    ("reptiles", ["crocodile", "dinosaur", "lizard", "snake", "turtle"]),
    ("small_mammals", ["hamster", "mouse", "rabbit", "shrew", "squirrel"]),
    ("trees", ["maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"]),
    ("vehicles_1", ["bicycle", "bus", "motorcycle", "pickup_truck", "train"]),
    ("vehicles_2", ["lawn_mower", "rocket", "streetcar", "tank", "tractor"]),
];

/// CIFAR-100's (fine) classes, in the order of their labels, which is alphabetical.
pub fn cifar100_classes() -> Vec<&'static str> {
    let mut classes: Vec<_> =
        CIFAR100_SUPERCLASSES.iter().flat_map(|(_, members)| *members).collect();
    classes.sort_unstable();
    classes
}

/// Whether these are the classes of CIFAR-10, in any order.
pub fn are_of_cifar10(classes: &[String]) -> bool {
    are_same(classes, CIFAR10_CLASSES.to_vec())
}

/// Whether these are the (fine) classes of CIFAR-100, in any order.
pub fn are_of_cifar100(classes: &[String]) -> bool {
    are_same(classes, cifar100_classes())
}

fn are_same(classes: &[String], mut names: Vec<&str>) -> bool {
    let mut classes: Vec<&str> = classes.iter().map(String::as_str).collect();
    classes.sort_unstable();
    names.sort_unstable();
    classes == names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_different_classes() {
        let mut classes = cifar100_classes();
        assert_eq!(
            (classes.len(), classes[0], classes[1], classes[99]),
            (100, "apple", "aquarium_fish", "worm")
        );
        classes.dedup();
        assert_eq!(classes.len(), 100);
    }

    #[test]
    fn members_are_in_alphabetical_order() {
        for (superclass, members) in CIFAR100_SUPERCLASSES {
            assert!(members.is_sorted(), "{superclass}");
        }
        assert!(CIFAR100_SUPERCLASSES.map(|(name, _)| name).is_sorted());
    }
}
