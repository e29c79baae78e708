package sandbox

import (
	"fmt"
	"slices"
	"strings"
)

// MaxObserve is how many keys one experiment may observe.
const MaxObserve = 64

// FormatObserve returns keys in the format of DataObserve: sorted, without duplicates.
func FormatObserve(keys []string) (string, error) {
	keys = slices.Clone(keys)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if len(keys) > MaxObserve {
		return "", fmt.Errorf("%d keys are to be observed, and at most %d can be", len(keys), MaxObserve)
	}
	for _, key := range keys {
		if err := ValidateKey(key); err != nil {
			return "", fmt.Errorf("key %q %w", key, err)
		}
	}
	return strings.Join(keys, ","), nil
}

// ParseObserve parses what FormatObserve returned; empty: no keys.
func ParseObserve(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	if len(s) > MaxObserve*(MaxKey+1) {
		return nil, fmt.Errorf("is %d bytes long, longer than %d keys are", len(s), MaxObserve)
	}
	keys := strings.Split(s, ",")
	if again, err := FormatObserve(keys); err != nil || again != s {
		if err == nil {
			err = fmt.Errorf("keys must be in order, each once")
		}
		return nil, err
	}
	return keys, nil
}
