package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// testValues are those of a machine whose cache lies at a long path.
func testValues() values {
	return newValues(map[string]string{
		"kubernetes": "/" + strings.Repeat("long/", 50) + "kubernetes-aa",
		"containerd": "/cache/containerd-bb", "runc": "/cache/runc-cc", "cni": "/cache/cni-dd",
		"coredns": "/cache/coredns-ee", "pause": "/cache/pause-ff", "node": "/cache/node-00", "helm": "/cache/helm-11",
	})
}

func TestConfigurationNamesOnlyPathsInsideTheNode(t *testing.T) {
	files, err := configFiles(testValues())
	if err != nil {
		t.Fatal(err)
	}
	for path, content := range files {
		if bytes.Contains(content, []byte("/cache/")) || bytes.Contains(content, []byte("long")) {
			t.Errorf("%s names a path of the machine:\n%s", path, content)
		}
		if bytes.Contains(content, []byte("<no value>")) {
			t.Errorf("%s has a gap:\n%s", path, content)
		}
	}
	for path, want := range map[string]string{
		"config/containerd.toml":   "BinaryName = '/run/programs/runc-cc/runc'",
		"config/kubelet.yaml":      "clusterDNS: [10.96.0.10]",
		"config/cni/pods.conflist": `"subnet": "10.244.0.0/20"`,
		"config/scheduler.yaml":    "kubeconfig: /run/node/config/scheduler.kubeconfig",
	} {
		if !strings.Contains(string(files[path]), want) {
			t.Errorf("%s lacks %q:\n%s", path, want, files[path])
		}
	}
	if content, ok := files["config/resolv.conf"]; !ok || len(content) > 0 {
		t.Errorf("pods would get the resolvers %q", content)
	}
}

func TestConfigurationParses(t *testing.T) {
	files, err := configFiles(testValues())
	if err != nil {
		t.Fatal(err)
	}
	var document map[string]any
	for _, path := range []string{"config/kubelet.yaml", "config/scheduler.yaml"} {
		if err := yaml.UnmarshalStrict(files[path], &document); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := json.Unmarshal(files["config/cni/pods.conflist"], &document); err != nil {
		t.Error(err)
	}
}

func TestEveryPartReadsFilesThatAreMade(t *testing.T) {
	files, err := configFiles(testValues())
	if err != nil {
		t.Fatal(err)
	}
	for user := range users() {
		files["config/"+user+".kubeconfig"] = nil
	}
	pki, err := newPKI(testTime)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts() {
		declared := map[string]bool{}
		for _, path := range p.files {
			declared[path] = true
			if _, ok := files[path]; !ok {
				t.Errorf("%s reads %s, which nothing makes", p.name, path)
			}
		}
		for _, arg := range p.args {
			_, value, _ := strings.Cut(arg, "=")
			if name, ok := strings.CutPrefix(value, insidePKI+"/"); ok {
				if _, made := pki[name]; !made {
					t.Errorf("%s: %s, which nothing makes", p.name, arg)
				}
			}
			if name, ok := strings.CutPrefix(value, insideConfig+"/"); ok && !declared["config/"+name] {
				t.Errorf("%s: a change of %s would not restart it", p.name, name)
			}
		}
	}
}

func TestKubeconfigStandsAlone(t *testing.T) {
	pki, err := newPKI(testTime)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig("admin", pki["ca.crt"], pki["admin.crt"], pki["admin.key"]))
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != server || !bytes.Equal(config.KeyData, pki["admin.key"]) || !bytes.Equal(config.CAData, pki["ca.crt"]) {
		t.Errorf("got %v", config)
	}
}

func TestObjectsOfDNSAreApplicable(t *testing.T) {
	manifest, err := render("coredns", dnsManifest, testValues())
	if err != nil {
		t.Fatal(err)
	}
	decoder := apiyaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096)
	kinds := map[string]int{}
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := resourceOf(object.GroupVersionKind()); err != nil {
			t.Error(err)
		}
		kinds[object.GetKind()]++
	}
	if kinds["Deployment"] != 1 || kinds["Service"] != 1 || kinds["ConfigMap"] != 1 {
		t.Errorf("kinds: %v", kinds)
	}
	if !bytes.Contains(manifest, []byte("image: localhost/coredns:ee")) {
		t.Errorf("no image in:\n%s", manifest)
	}
}
