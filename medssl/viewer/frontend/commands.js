// @ts-check
// Commands: what each key and button does, in terms of the parts of the viewer.
import { applyAtCursor, nudge, selectTool } from "./tools.js";
/** @import { Assistant } from "./assistant.js" */
/** @import { Commands, ViewerState } from "./types" */
/** @import { Comparison } from "./comparison.js" */
/** @import { Display } from "./display.js" */
/** @import { HelpPage } from "./helpPage.js" */
/** @import { MaskEdits } from "./maskEdits.js" */
/** @import { MeshView } from "./meshView.js" */
/** @import { Navigation } from "./navigation.js" */
/** @import { Reading } from "./reading.js" */
/** @import { Store } from "./store.js" */
/** @import { ToolContext } from "./tools.js" */

/**
 * The parts that commands work on. They are read when a command runs, since the buttons are made before some parts.
 * @typedef {object} Parts
 * @property {Store<ViewerState>} store
 * @property {Assistant} assistant
 * @property {Comparison} comparison
 * @property {Display} display
 * @property {HelpPage} help
 * @property {MaskEdits} maskEdits
 * @property {MeshView} meshView
 * @property {Navigation} navigation
 * @property {Reading} reading
 * @property {ToolContext} tools
 * @property {() => void} clear removes measurements, messages and the help page
 * @property {() => void} reopen fetches the scan again
 */

/**
 * @param {Parts} parts
 * @returns {Commands}
 */
export function createCommands(parts) {
  return {
    stepFinding: (by) => parts.reading.step(by),
    selectFinding: (id) => parts.reading.select(id),
    decide: (decision) => parts.reading.decide(decision),
    acceptAll: (label) => parts.reading.acceptAll(label),
    relabel: () => parts.reading.relabel(),
    addMissed: () => parts.reading.addMissed(),
    undo: () => parts.reading.undo(),
    redo: () => parts.reading.redo(),
    sign: () => parts.reading.sign(),
    reopenReading: () => parts.reading.reopen(),
    deliver: () => parts.reading.request("deliver"),
    nextCase: () => parts.reading.request("next"),
    retryRefused: () => parts.reading.outbox.retry(),
    discardRefused: () => parts.reading.discardRefused(),
    interpolate: () => parts.reading.interpolate(parts.navigation.active.plane),
    editMask: (name) => parts.maskEdits.apply(name),
    copySlice: (by) => parts.maskEdits.copySlice(parts.navigation.active.plane, by),
    project: (kind) => parts.display.project(kind),
    cycleProjection: () => parts.display.cycleProjection(),
    applyPreset: (number) => parts.comparison.applyPreset(number) || parts.display.applyPreset(number),
    setThreshold: (threshold) => parts.display.setThreshold(threshold),
    styleLabel: (number, change) => parts.display.styleLabel(number, change),
    toggle: (name) => parts.display.toggle(name),
    toggleUncertainty: () => parts.display.toggleUncertainty(),
    scaleBrush: (factor) => parts.display.scaleBrush(factor),
    toggleMesh: () => parts.meshView.toggle(),
    cycleLayer: () => parts.comparison.cycleLayer(),
    toggleLink: () => parts.comparison.toggleLink(),
    cycleComparison: () => parts.comparison.cycle(),
    showComparison: (id) => parts.comparison.choose(id),
    visitUnmatched: (id, centre_mm) => parts.comparison.visit(id, centre_mm),
    selectTool: (tool) => selectTool(parts.store, tool),
    nudge: (key) => nudge(parts.tools, parts.navigation.active, key),
    applyAtCursor: (isModified) => applyAtCursor(parts.tools, parts.navigation.active, isModified),
    acceptProposal: () => parts.assistant.accept(),
    scroll: (by) => parts.navigation.scroll(parts.navigation.active, by),
    turnPane: (by) => parts.navigation.turn(by),
    zoom: (factor) => parts.navigation.zoomAtCursor(factor),
    resetView: () => parts.navigation.resetView(),
    enlarge: () => parts.navigation.enlarge(parts.navigation.active),
    clear: () => parts.clear(),
    toggleHelp: () => parts.help.toggle(),
    reopen: () => parts.reopen(),
  };
}
