//go:build !race

package main

// raceDetector tells whether the program is built with it: everything takes some ten times as long.
const raceDetector = false
