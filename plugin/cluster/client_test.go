package cluster

import (
	"errors"
	"testing"
)

func TestTogether_ReturnsTheFirstErrorInOrder(t *testing.T) {
	second := make(chan struct{})
	err := InParallel(
		func() error { <-second; return errors.New("first") },
		func() error { defer close(second); return errors.New("second") },
		func() error { return nil },
	)
	if err == nil || err.Error() != "first" {
		t.Errorf("got %v", err)
	}
}
