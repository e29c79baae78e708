package sandbox

import (
	"encoding/json"
	"fmt"
)

// Variables that admission gives app containers in forks and checks, beside those of ours, unless they have them.
const (
	EnvHTTPProxy   = "HTTP_PROXY"
	EnvNoProxy     = "NO_PROXY"
	EnvPropagators = "OTEL_PROPAGATORS"
)

// GivenEnv returns the names of the variables that admission looks for in an app container before it gives it any.
func GivenEnv() []string {
	return []string{
		"ALL_PROXY", EnvHTTPProxy, EnvNoProxy, EnvPropagators, EnvBaggage, EnvKey, EnvName, EnvPodIP,
		"all_proxy", "http_proxy", "no_proxy",
	}
}

// EnvPodIP is declared before the proxy variables of an app container, whose value refers to it.
const EnvPodIP = "SANDBOX_POD_IP"

// FormatEnvFrom writes the value of AnnotationEnvFrom: variables by container. It is empty where there are none.
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

// ParseEnvFrom reads the value of AnnotationEnvFrom.
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
