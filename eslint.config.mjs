import js from '@eslint/js';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

const ADDON = 'Only lib/native.ts loads the native addon.';

export default defineConfig(
  { ignores: ['build/', 'dist/', 'node_modules/', 'prebuilds/', 'coverage/', 'models/', 'train/'] },
  js.configs.recommended,
  tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      'no-restricted-imports': [
        'error',
        { patterns: [{ regex: '\\.node$', message: ADDON }], paths: [{ name: 'node-gyp-build', message: ADDON }] },
      ],
      'no-restricted-syntax': [
        'error',
        {
          selector: "CallExpression[callee.name='require'] > Literal[value=/(\\.node$|node-gyp-build)/]",
          message: ADDON,
        },
        { selector: "MemberExpression[object.name='process'][property.name='dlopen']", message: ADDON },
      ],
      'max-lines': ['error', 600],
      eqeqeq: 'error',
    },
  },
  { files: ['lib/native.ts'], rules: { 'no-restricted-syntax': 'off' } },
  {
    // The tests load redrafter_testing.node; test/layers.test.ts checks that nothing in lib/ does.
    files: ['test/**'],
    rules: { 'no-restricted-imports': 'off', 'no-restricted-syntax': 'off' },
  },
  {
    files: ['**/*.mjs'],
    languageOptions: {
      globals: {
        AbortController: 'readonly',
        Buffer: 'readonly',
        console: 'readonly',
        process: 'readonly',
        URL: 'readonly',
      },
    },
    rules: { '@typescript-eslint/explicit-module-boundary-types': 'off' },
  },
  {
    // JavaScript for several hosts, where the type checker knows which globals exist; Electron's preload is CommonJS.
    files: ['examples/electron/**'],
    rules: {
      'no-undef': 'off',
      '@typescript-eslint/no-require-imports': 'off',
      '@typescript-eslint/explicit-module-boundary-types': 'off',
    },
  },
);
