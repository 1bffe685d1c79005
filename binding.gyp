# For tools that build addons through node-gyp. CMakeLists.txt is the only list of native sources; this calls it.
{
  "targets": [
    {
      "target_name": "cmake",
      "type": "none",
      "actions": [
        {
          "action_name": "cmake_js",
          "inputs": ["CMakeLists.txt"],
          "outputs": ["<(PRODUCT_DIR)/redrafter.node"],
          "action": ["node", "node_modules/cmake-js/bin/cmake-js", "build", "-B", "Release", "-O", "build/Release"]
        }
      ]
    }
  ]
}
