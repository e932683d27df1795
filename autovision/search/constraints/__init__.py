"""What a request demands of the model beside its quality: which architectures are small and quick enough."""
