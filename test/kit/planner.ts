/** The planner alone, as the bindings of tests have it. */
import { testing } from './testing.js';

export interface Shape {
  width: number;
  length: number;
  budget: number;
}

export interface Told {
  plan(requests: { id: number; mostLength: number }[], round: { otherRows: number; mostRows: number }): Shape[];
  learn(id: number, outcome?: { width: number; length: number; accepted: number; onFirstBeam: number }): void;
  observe(round: {
    drafts: { lanes: number; width: number; length: number }[];
    rows: number;
    draftMs: number;
    verifyMs: number;
    hostMs: number;
  }): void;
  chain(id: number): number[];
  costs(group: { lanes: number; width: number; length: number }, rows: number): { draftMs: number; forwardMs: number };
}

export const planner = testing['planner'] as { create(forward: number[][], draftStep: number[][]): Told };
