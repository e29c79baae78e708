package delivery

import (
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Connect returns how the cluster of the current kubeconfig context is reached, and its target: that of the program at own which brought
// it up, or, where own is empty, what For says of the context.
func Connect(own, registry string) (*rest.Config, Target, error) {
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil)
	config, err := loaded.ClientConfig()
	if err != nil {
		return nil, Target{}, err
	}
	config.QPS = -1 // the API server's own limits
	if own != "" {
		return config, Own(own), nil
	}
	raw, err := loaded.RawConfig()
	if err != nil {
		return nil, Target{}, err
	}
	target, err := For(raw.CurrentContext, registry)
	return config, target, err
}
