// Package probe tries sandbox-probe, as it is built for its image, on programs that nobody here wrote.
package probe
