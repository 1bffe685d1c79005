// Parsers of the option values of the scripts here.
import { InvalidArgumentError } from 'commander';

/** @param {string} text */
export function whole(text) {
  if (!/^\d{1,9}$/.test(text) || Number(text) === 0) throw new InvalidArgumentError('must be a whole number above 0.');
  return Number(text);
}

/** @param {string} text */
export const wholes = (text) => text.split(',').map(whole);

/** @param {string} text */
export function decimal(text) {
  if (!/^\d{1,9}(\.\d+)?$/.test(text)) throw new InvalidArgumentError('must be a number, 0 or above.');
  return Number(text);
}

/** @param {string} text */
export function positive(text) {
  const number = decimal(text);
  if (number === 0) throw new InvalidArgumentError('must be above 0.');
  return number;
}

/**
 * In the order of `known`.
 * @template {string} Name
 * @param {readonly Name[]} known
 */
export const listOf = (known) => (/** @type {string} */ text) => {
  const all = text.split(',');
  /** @type {readonly string[]} */
  const names = known;
  if (!all.every((one) => names.includes(one))) throw new InvalidArgumentError(`must be of ${known.join(',')}.`);
  return known.filter((one) => all.includes(one));
};
