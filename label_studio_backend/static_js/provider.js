/* Adds the Pachyderm provider to the storage dialog.
 *
 * The dialog's list of providers is a private constant of the bundle, but each reader of it calls
 * Object.entries(providers) first. So that function is wrapped once, the list is recognised by its shape, our entry is
 * added, and the original function is put back. The schema types are borrowed from the entries that are there. */
(function () {
  "use strict";
  const stock = Object.entries;

  function isProviderList(object) {
    return (
      object && typeof object === "object" && object.s3 && object.localfiles &&
      object.s3.name === "s3" && Array.isArray(object.s3.fields)
    );
  }

  function schemaOf(list, provider, field) {
    return list[provider].fields.find((one) => one.name === field).schema;
  }

  function pachyderm(list) {
    const string = schemaOf(list, "s3", "bucket").constructor;
    const boolean = schemaOf(list, "s3", "presign")._def.innerType.constructor;
    return {
      name: "pachyderm",
      title: "Pachyderm",
      description: "Versioned files of a Pachyderm repository; each Sync of labels is one commit",
      icon: list.localfiles.icon,
      fields: [
        {
          name: "repository", type: "text", label: "Repository", required: true,
          placeholder: "[project/]repo[@branch|=commit]",
          description: "A source: images@master, or one commit of it, images=<commit ID>. A target: labels@master.",
          schema: string.create().min(1, "Repository is required"),
        },
        {
          name: "prefix", type: "text", label: "Path prefix", placeholder: "cats", target: "export",
          description: "Optional: label files are written below this directory",
          schema: string.create().optional().default(""),
        },
        {
          name: "glob", type: "text", label: "Glob", placeholder: "**/*.jpg", target: "import",
          description: "Optional: only files that match, relative to the prefix of the next step",
          schema: string.create().optional().default(""),
        },
        // The defaults of the dialog's own next step, which would be "Tasks" and not recursive.
        {
          name: "use_blob_urls", type: "hidden", label: "", target: "import", defaultValue: true,
          schema: boolean.create().default(true),
        },
        // Deleted labels are deleted in the next commit; the history keeps them. The dialog shows this as a switch.
        {
          name: "can_delete_objects", type: "hidden", label: "", target: "export", defaultValue: true,
          schema: boolean.create().default(true),
        },
        {
          name: "recursive_scan", type: "hidden", label: "", target: "import", defaultValue: true,
          schema: boolean.create().default(true),
        },
      ],
      layout: [{ fields: ["repository"] }, { fields: ["glob"] }, { fields: ["prefix"] }],
    };
  }

  Object.entries = function (object) {
    if (isProviderList(object)) {
      Object.entries = stock;
      if (!object.pachyderm) {
        try {
          object.pachyderm = pachyderm(object);
        } catch (error) {
          console.error("The Pachyderm provider could not be added to the storage dialog", error);
        }
      }
    }
    return stock(object);
  };
})();
