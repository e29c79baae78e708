package plan

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// Only what is surely no HTTP is taken for that.
func TestUnroutableProtocol(t *testing.T) {
	tcp := "tcp"
	pg, http := "postgresql", "http"
	pod := func(image string, ports ...corev1.ContainerPort) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image, Ports: ports}}}}
	}
	for _, tt := range []struct {
		name  string
		image string
		ports []corev1.ServicePort
		want  bool
	}{
		{"web", "web:1", []corev1.ServicePort{{Name: "http", Port: 80}}, false},
		{"nothing is known", "app:1", []corev1.ServicePort{{Port: 9000}}, false},
		{"database by number", "app:1", []corev1.ServicePort{{Port: 5432}}, true},
		{"database by image", "docker.io/library/redis:7", []corev1.ServicePort{{Port: 7000}}, true},
		{"database by name", "app:1", []corev1.ServicePort{{Name: "mysql", Port: 4000}}, true},
		{"stated TCP", "app:1", []corev1.ServicePort{{Port: 8080, AppProtocol: &tcp}}, true},
		{"stated postgres", "app:1", []corev1.ServicePort{{Port: 8080, AppProtocol: &pg}}, true},
		{"HTTP on the number of a database, stated", "app:1", []corev1.ServicePort{{Port: 6379, AppProtocol: &http}}, false},
		{"HTTP on the number of a database, by name", "app:1", []corev1.ServicePort{{Name: "http-api", Port: 9092}}, false},
		{"TLS alone", "app:1", []corev1.ServicePort{{Name: "https", Port: 443}}, true},
		{"TLS by number", "app:1", []corev1.ServicePort{{Port: 443}}, true},
		{"TLS and HTTP", "app:1", []corev1.ServicePort{{Name: "https", Port: 443}, {Name: "web", Port: 80}}, false},
		{"database with metrics", "postgres:16", []corev1.ServicePort{{Name: "metrics", Port: 9187}, {Name: "pg", Port: 5432}}, true},
		{"metrics alone", "app:1", []corev1.ServicePort{{Name: "metrics", Port: 9187}}, false},
		{"the broker's console", "rabbitmq:4", []corev1.ServicePort{{Name: "amqp", Port: 5672}, {Name: "http-stats", Port: 15672}}, false},
	} {
		s := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Selector: map[string]string{"app": "x"}, Ports: tt.ports}}
		s.Name = "x"
		got := UnroutableProtocol([]*corev1.Service{s}, pod(tt.image), map[string]string{"app": "x"})
		if (got != "") != tt.want {
			t.Errorf("%s: %q, want one: %t", tt.name, got, tt.want)
		}
	}
}
