package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// client is what bringing up a cluster asks its API server for.
type client struct {
	typed   kubernetes.Interface
	dynamic dynamic.Interface
}

func newClient(kubeconfig string) (client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return client{}, err
	}
	config.QPS = -1 // no limit
	config.Timeout = 10 * time.Second
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return client{}, err
	}
	dynamic, err := dynamic.NewForConfig(config)
	return client{typed, dynamic}, err
}

// serving returns nil once the API server is ready.
func (c client) serving(ctx context.Context) error {
	return c.typed.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}

// nodeReady returns nil once the kubelet says that the node is ready, and has
// said so since its start.
func (c client) nodeReady(ctx context.Context, start time.Time) error {
	node, err := c.typed.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type != corev1.NodeReady {
			continue
		}
		if condition.Status != corev1.ConditionTrue {
			return fmt.Errorf("the node is not ready: %s", condition.Message)
		}
		if condition.LastHeartbeatTime.Time.Before(start.Truncate(time.Second)) {
			return errors.New("the node has not been heard of since the kubelet's start")
		}
		return nil
	}
	return errors.New("the node does not tell whether it is ready")
}

// namespaceReady returns nil once pods can be made in a namespace, which takes
// its default ServiceAccount.
func (c client) namespaceReady(ctx context.Context, name string) error {
	_, err := c.typed.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
	return err
}

// resolves returns nil once a Service's name is resolved by the cluster's DNS,
// asked at its Service address: that takes a running pod, its network,
// kube-proxy and CoreDNS.
func resolves(ctx context.Context) error {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(dnsIP, "53"))
	}}
	// While the Service has no endpoints, an answer never comes.
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	addresses, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+domain+".")
	if err != nil {
		return fmt.Errorf("cluster DNS: %w", err)
	}
	if len(addresses) != 1 || addresses[0] != kubernetesIP {
		return fmt.Errorf("cluster DNS gives %v for the API server's Service", addresses)
	}
	return nil
}

// apply applies the objects of a YAML document, server-side.
func (c client) apply(ctx context.Context, manifest []byte) error {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		resource, err := resourceOf(object.GroupVersionKind())
		if err != nil {
			return err
		}
		target := dynamic.ResourceInterface(c.dynamic.Resource(resource))
		if namespace := object.GetNamespace(); namespace != "" {
			target = c.dynamic.Resource(resource).Namespace(namespace)
		}
		if _, err := target.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "cluster", Force: true}); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
}

// resourceOf names the resource of the few kinds that the cluster's own objects
// are of.
func resourceOf(kind schema.GroupVersionKind) (schema.GroupVersionResource, error) {
	names := map[string]string{
		"ServiceAccount": "serviceaccounts", "ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings",
		"ConfigMap": "configmaps", "Service": "services", "Deployment": "deployments",
	}
	name, ok := names[kind.Kind]
	if !ok {
		return schema.GroupVersionResource{}, fmt.Errorf("kind %s is not among those that are applied", kind.Kind)
	}
	return kind.GroupVersion().WithResource(name), nil
}
