//go:build race

package main

// raceDetector says whether this is built with it: it takes several times the memory.
const raceDetector = true
