"""Gates: what a challenger must show before it may serve, one module for each subject.

    majority      the first model of all knows more than the most frequent class
    better        a challenger is better on all images or on a subgroup
    not_worse     it is not worse on all images, nor on a subgroup
    forgetting    it has not forgotten a class
    new_class     what it knows of classes that are new to the champion, which no other gate of loss looks at
    robustness    it is not worse on corrupted images
    limits        serving it takes no more time, memory and storage than is allowed

All but the last are pure functions of paired predictions (`paired`), and have a one-sided error of 5 % each where they
refuse anything. The order of the images has no influence on any of them.
"""
