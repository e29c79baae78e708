package chart_test

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// The example of signing people in by OpenID Connect fits together: Ingress, oauth2-proxy and gateway.
func TestExampleOfOIDC(t *testing.T) {
	const example = chart + "/examples/oidc/"
	read := func(name string) string {
		raw, err := os.ReadFile(example + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict([]byte(read("values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	objects := mustTemplate(t, values)
	proxy, err := decode(read("oauth2-proxy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	service, deployment := only[*corev1.Service](t, proxy), only[*appsv1.Deployment](t, proxy)
	backend := only[*networkingv1.Ingress](t, objects).Spec.Rules[0].HTTP.Paths[0].Backend.Service
	if backend.Name != service.Name || backend.Port.Number != service.Spec.Ports[0].Port {
		t.Errorf("the Ingress leads to %+v, the proxy is Service %s, %+v", backend, service.Name, service.Spec.Ports)
	}
	pod := deployment.Spec.Template
	for name, value := range service.Spec.Selector {
		if pod.Labels[name] != value || deployment.Spec.Selector.MatchLabels[name] != value {
			t.Errorf("the Service selects %v", service.Spec.Selector)
		}
	}
	c := pod.Spec.Containers[0]
	if p := c.Ports[0]; service.Spec.Ports[0].TargetPort.StrVal != p.Name || !slices.Contains(c.Args, "--http-address=:"+strconv.Itoa(int(p.ContainerPort))) {
		t.Errorf("ports: %+v, %+v", service.Spec.Ports, c.Ports)
	}
	// The gateway that it leads to, by the host that came and the password.
	gateway := ""
	for _, s := range all[*corev1.Service](objects) {
		if isGateways(s) && s.Spec.Ports[0].Port == 80 {
			gateway = s.Name
		}
	}
	domain := values["gateway"].(map[string]any)["domain"].(string)
	for _, want := range []string{"--upstream=http://" + gateway, "--pass-host-header", "--pass-basic-auth", "--reverse-proxy", "--cookie-domain=." + domain,
		"--whitelist-domain=." + domain} {
		if !slices.Contains(c.Args, want) {
			t.Errorf("%s is not in %v", want, c.Args)
		}
	}
	if !slices.ContainsFunc(c.Args, func(a string) bool {
		return strings.HasPrefix(a, "--redirect-url=https://") && strings.HasSuffix(a, "."+domain+"/oauth2/callback")
	}) {
		t.Errorf("people come back to %v", c.Args)
	}
	secret := ""
	for _, v := range gatewayDeployment(t, objects).Spec.Template.Spec.Volumes {
		if v.Name == "proxy" {
			secret = v.Secret.SecretName + "/" + v.Secret.Items[0].Key
		}
	}
	var refs []string
	for _, e := range c.Env {
		ref := e.ValueFrom.SecretKeyRef
		refs = append(refs, e.Name+"="+ref.Name+"/"+ref.Key)
		if !strings.Contains(read("oauth2-proxy.yaml"), "--from-literal="+ref.Key+"=") {
			t.Errorf("nothing makes %s of the Secret", ref.Key)
		}
	}
	if !slices.Contains(refs, "OAUTH2_PROXY_BASIC_AUTH_PASSWORD="+secret) {
		t.Errorf("the gateway takes the password of %s, the proxy has %v", secret, refs)
	}
}
