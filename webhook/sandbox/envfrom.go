package sandbox

import (
	"encoding/json"
	"fmt"
)

// Variables that admission sets in app containers of forks and checks, beside ours, unless they have them.
const (
	EnvHTTPProxy   = "HTTP_PROXY"
	EnvNoProxy     = "NO_PROXY"
	EnvPropagators = "OTEL_PROPAGATORS"
)

// GivenEnv returns the names of the variables that admission looks for in an app container before it sets any.
func GivenEnv() []string {
	return []string{
		"ALL_PROXY", EnvHTTPProxy, EnvNoProxy, EnvPropagators, EnvBaggage, EnvKey, EnvName, EnvPodIP,
		"all_proxy", "http_proxy", "no_proxy",
	}
}

// EnvPodIP is declared before the proxy variables of an app container, whose values refer to it.
const EnvPodIP = "SANDBOX_POD_IP"

// FormatEnvFrom formats the value of AnnotationEnvFrom: variables by container; empty if there are none.
func FormatEnvFrom(names map[string][]string) string {
	if len(names) == 0 {
		return ""
	}
	b, err := json.Marshal(names)
	if err != nil {
		panic(err) // strings always encode
	}
	return string(b)
}

// ParseEnvFrom parses the value of AnnotationEnvFrom.
func ParseEnvFrom(s string) (map[string][]string, error) {
	if s == "" {
		return nil, nil
	}
	var names map[string][]string
	if err := json.Unmarshal([]byte(s), &names); err != nil {
		return nil, fmt.Errorf("must be a JSON object of lists of names: %w", err)
	}
	return names, nil
}
