// Package cluster connects the plugin to the API server, with only the caller's credentials. The packages below it
// make the calls.
package cluster

import (
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// WebhookConfiguration is the name of the chart's MutatingWebhookConfiguration.
const WebhookConfiguration = "kubectl-sandbox"

// A Client is the connection to one cluster.
type Client struct {
	// Namespace is the command's namespace: that of --namespace, or of the context.
	Namespace string
	Kube      kubernetes.Interface
	Dynamic   dynamic.Interface
	Mapper    meta.RESTMapper

	Config  *rest.Config
	Builder func() *resource.Builder
	// Discovery uses kubectl's cache while that is fresh.
	Discovery discovery.DiscoveryInterface
}

// New returns a Client for the cluster, namespace and user that the factory's flags choose. It makes no API call.
func New(f cmdutil.Factory) (*Client, error) {
	namespace, _, err := f.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, noCluster(err)
	}
	config, err := f.ToRESTConfig()
	if err != nil {
		return nil, noCluster(err)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, noCluster(err)
	}
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, noCluster(err)
	}
	mapper, err := f.ToRESTMapper()
	if err != nil {
		return nil, Explain(err)
	}
	cached, err := f.ToDiscoveryClient()
	if err != nil {
		return nil, Explain(err)
	}
	return &Client{
		Namespace: namespace, Kube: kube, Dynamic: dyn, Mapper: mapper,
		Config: config, Builder: f.NewBuilder, Discovery: cached,
	}, nil
}

// In returns a client for another namespace of the cluster.
func (c *Client) In(namespace string) *Client {
	other := *c
	other.Namespace = namespace
	return &other
}

// Deployments returns the resource of forks.
func Deployments() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
}

// InParallel runs all calls concurrently to their end, and returns the first error in the order of the calls. So the
// message does not depend on timing.
func InParallel(calls ...func() error) error {
	errs := make([]error, len(calls))
	var wg sync.WaitGroup
	for i, call := range calls {
		wg.Go(func() { errs[i] = call() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
