package e2e

import "testing"

var shared *world

func TestMain(m *testing.M) { m.Run() }
